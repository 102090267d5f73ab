"""A whole comparison: scores rows in, rows of the comparison table and sentences out."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from vtc.compare import betas, words
from vtc.compare.cells import Cell, Field, Row, cells_of
from vtc.compare.curves import At, Curve, Verdict, verdicts
from vtc.compare.estimates import Estimate, SeedNoise, estimate, interval, seed_noise
from vtc.compare.gap import Share, share_closed
from vtc.compare.pricing import PriceOf, Times
from vtc.errors import InputError
from vtc.tables.specs import COMPARISON

BLIND = "blind"
FLOORS = (BLIND, "chance", "lowest")
# What stands for no compression, or for no image, is no rival's next best.
_YARDSTICKS = (BLIND,)


@dataclass(frozen=True)
class Request:
    """What to compare, how: the settings of `vtc compare`."""

    by: str = "task"
    tasks: tuple[str, ...] = ()
    text_tokens: float = 50.0
    uncompressed: str = "mlp"
    floor: str | None = None
    level: float = 0.95

    def settings(self) -> dict[str, Any]:
        """The settings as they go into a footer."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Rows of the table, and what is to be said about them."""

    rows: list[dict[str, Any]]
    lines: list[str]


@dataclass
class _Entry:
    cell: Cell
    label: str
    estimate: Estimate
    row: dict[str, Any]


def compare(
    rows: Sequence[Row], request: Request, price_of: PriceOf, times: Times | None = None
) -> Comparison:
    """Compare the compressors of scores rows, within each task (or benchmark), LLM and encoder.

    `price_of` says what a cell costs, if it can be known; with `times` the same cost is the same
    time. Raises InputError as `cells_of`, and for a task or an uncompressed model that no row has.
    """
    asked = _of_tasks(rows, request.tasks)
    # Dropped inside the LLM, tokens are so many in one layer and others in the next: no one V.
    kept = [row for row in asked if row.get("visual_tokens_mean") in (None, "")]
    cells = cells_of(kept, request.by)
    if not cells:
        raise InputError("no scores of compressors before the LLM to compare")
    labels = _labels(cells)
    _refuse_uncompressed(request, labels)
    telling = [row for row in kept if row["compressor"] != BLIND]
    exponents = betas.betas(telling, request.by, request.level)
    slopes = betas.slopes(kept, request.by, request.level)
    found, lines = [], []
    for field, own in groupby(cells, key=lambda cell: cell.field):
        entries, said = _field(field, list(own), labels, request, price_of, times)
        for entry in entries:
            key = (field.task, field.benchmark, field.encoder, entry.cell.label)
            _add_beta(entry.row, exponents.get(key), slopes.get(key))
        found += [COMPARISON.complete(entry.row) for entry in entries]
        lines += said
    lines = [words.readings(request.level, times, request.text_tokens), *lines]
    if len(kept) < len(asked):
        lines.append(words.of_left_out(len(asked) - len(kept), len(asked)))
    lines += words.of_untrained(kept)
    lines += words.of_betas(found, len({cell.field.n_params for cell in cells}))
    return Comparison(found, lines)


def _of_tasks(rows: Sequence[Row], tasks: Sequence[str]) -> list[Row]:
    there = list(dict.fromkeys(row["task"] for row in rows))
    for task in tasks:
        if task not in there:
            raise InputError(f"no scores of task '{task}'; there are {', '.join(there) or 'none'}")
    return [row for row in rows if not tasks or row["task"] in tasks]


def _refuse_uncompressed(request: Request, labels: Mapping[str, str]) -> None:
    """Raise InputError if another compressor than the default is asked for and not there."""
    there = sorted(set(labels.values()))
    if request.uncompressed not in (Request.uncompressed, *there):
        raise InputError(
            f"--uncompressed {request.uncompressed}: the scores are of {', '.join(there)}"
        )


def _labels(cells: Sequence[Cell]) -> dict[str, str]:
    """The short name of every label: without settings where a compressor has but one."""
    variants: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        variants[cell.compressor].add(cell.label)
    alone = {cell.label for cell in cells if len(variants[cell.compressor]) == 1}
    return {
        cell.label: cell.compressor if cell.label in alone and cell.repeats == 1 else cell.label
        for cell in cells
    }


def _field(
    field: Field,
    cells: Sequence[Cell],
    labels: Mapping[str, str],
    request: Request,
    price_of: PriceOf,
    times: Times | None,
) -> tuple[list[_Entry], list[str]]:
    """The entries of one field and its sentences."""
    noise = seed_noise([run.score for run in cell.runs] for cell in cells)
    entries = [_entry(cell, labels[cell.label], request, noise, price_of, times) for cell in cells]
    by_v = {
        tokens: list(own)
        for tokens, own in groupby(entries, key=lambda entry: entry.cell.visual_tokens)
    }
    for own in by_v.values():
        _same_v(own, request.level)
    column = "flops" if times is None else "time_ms"
    curves = _curves(entries, column)
    segments = _same_cost(entries, curves, column, request.level)
    floors = _floors(entries, request)
    _gaps(by_v, entries, floors, request)
    lines = words.of_field(field, [entry.row for entry in entries], noise, segments, request, times)
    return entries, lines


def _entry(
    cell: Cell,
    label: str,
    request: Request,
    noise: SeedNoise | None,
    price_of: PriceOf,
    times: Times | None,
) -> _Entry:
    first = cell.runs[0]
    counts = {run.n_items for run in cell.runs}
    found = estimate(
        [run.score for run in cell.runs], [run.stderr for run in cell.runs], first.n_items, noise
    )
    ends = interval(found, request.level)
    price = price_of(cell)
    row: dict[str, Any] = {
        **cell.field._asdict(),
        "compressor": label,
        "compressor_settings": cell.settings,
        "visual_tokens": cell.visual_tokens,
        "n_runs": len(cell.runs),
        "seeds": ",".join(map(str, cell.seeds)) or None,
        "n_items": first.n_items if len(counts) == 1 else None,
        "score": found.score,
        "stderr_seeds": None if found.seeds is None else found.seeds**0.5,
        "stderr_items": None if found.items is None else found.items**0.5,
        "chance": first.chance,
        "level": request.level,
    }
    if ends is not None:
        row["score_low"], row["score_high"] = max(ends[0], 0.0), min(ends[1], 1.0)
    if price is not None:
        row["flops"] = price.total
        row |= {f"flops_{part}": value for part, value in price._asdict().items()}
    if times is not None:
        row["time_ms"] = times.of(cell)
    return _Entry(cell, label, found, row)


def _same_v(entries: Sequence[_Entry], level: float) -> None:
    """Fill the places of those at one V."""
    tokens = float(entries[0].cell.visual_tokens)
    rivals = [At(entry.label, entry.estimate, tokens, "measured") for entry in entries]
    found = verdicts(rivals, level)
    for entry in entries:
        _place(entry.row, "same_v", found[entry.label], level)


def _place(row: dict[str, Any], name: str, verdict: Verdict, level: float) -> None:
    row[name], row[f"{name}_best"] = verdict.place, verdict.best.label
    if verdict.difference is None:
        return
    row[f"{name}_difference"] = verdict.difference.score
    ends = interval(verdict.difference, level)
    if ends is not None:
        row[f"{name}_low"], row[f"{name}_high"] = ends


def _curves(entries: Sequence[_Entry], column: str) -> list[Curve]:
    points: dict[str, list[tuple[float, int, Estimate]]] = defaultdict(list)
    for entry in entries:
        if entry.row.get(column) is not None:
            point = (entry.row[column], entry.cell.visual_tokens, entry.estimate)
            points[entry.label].append(point)
    return [Curve.of(label, own) for label, own in points.items()]


def _same_cost(
    entries: Sequence[_Entry], curves: Sequence[Curve], column: str, level: float
) -> list[words.Segment]:
    """Fill the places at equal cost; who is best at which of the costs that were measured."""
    segments: list[words.Segment] = []
    costs = sorted({entry.row[column] for entry in entries if entry.row.get(column) is not None})
    at_cost = {}
    for cost in costs:
        rivals = [one for one in (curve.at(cost) for curve in curves) if one is not None]
        at_cost[cost] = verdicts(rivals, level)
        segments.append(words.Segment.of(cost, at_cost[cost]))
    for entry in entries:
        if entry.row.get(column) is None:
            continue
        verdict = at_cost[entry.row[column]][entry.label]
        _place(entry.row, "same_cost", verdict, level)
        entry.row["same_cost_best_v"] = verdict.best.visual_tokens
        entry.row["same_cost_how"] = verdict.best.how
    return segments


def _floors(entries: Sequence[_Entry], request: Request) -> dict[int, tuple[str, Estimate]]:
    """The floor at every V and its name: the blind control there, chance, or the lowest of all.

    A blind control that was not run at a V stands in by its own nearest V. Raises InputError if
    the floor that is asked for is not there.
    """
    blind = [entry for entry in entries if entry.cell.compressor == BLIND]
    chances = [entry.row["chance"] for entry in entries if entry.row.get("chance") is not None]
    asked = request.floor or (BLIND if blind else "lowest")
    if asked == BLIND and not blind:
        raise InputError(f"--floor blind: {entries[0].cell.field.title} has no run of blind")
    if asked == "chance" and not chances:
        raise InputError(f"--floor chance: {entries[0].cell.field.title} has no chance level")
    lowest = min(entries, key=lambda entry: entry.estimate.score)
    found = {}
    for tokens in {entry.cell.visual_tokens for entry in entries}:
        if asked == BLIND:
            near = min(blind, key=lambda one: abs(one.cell.visual_tokens - tokens))
            found[tokens] = (f"blind at V = {near.cell.visual_tokens}", near.estimate)
        elif asked == "chance":
            found[tokens] = ("chance", Estimate(max(chances), None, 0.0, 0.0, float("inf")))
        else:
            name = f"lowest score: {lowest.label} at V = {lowest.cell.visual_tokens}"
            found[tokens] = (name, lowest.estimate)
    return found


def _gaps(
    by_v: Mapping[int, Sequence[_Entry]],
    entries: Sequence[_Entry],
    floors: Mapping[int, tuple[str, Estimate]],
    request: Request,
) -> None:
    """Fill the shares of the gap to the uncompressed model: that of its largest V."""
    whole = [entry for entry in entries if entry.label == request.uncompressed]
    if not whole:
        return
    best = max(whole, key=lambda entry: entry.cell.visual_tokens).estimate
    for tokens, own in by_v.items():
        name, floor = floors[tokens]
        for entry in own:
            entry.row["floor"] = name
            _share(
                entry.row, "gap_closed", share_closed(entry.estimate, floor, best, request.level)
            )
            others = [
                other
                for other in own
                if other is not entry and other.label not in (*_YARDSTICKS, request.uncompressed)
            ]
            if not others or entry.label in (*_YARDSTICKS, request.uncompressed):
                continue
            rival = max(others, key=lambda other: other.estimate.score)
            if rival.estimate.score > entry.estimate.score:
                continue  # A share of the gap that the next best leaves is asked of the best.
            entry.row["next_best"] = rival.label
            share = share_closed(entry.estimate, rival.estimate, best, request.level)
            _share(entry.row, "gap_closed_next", share)


def _share(row: dict[str, Any], name: str, share: Share | None) -> None:
    if share is not None:
        row[name], row[f"{name}_low"], row[f"{name}_high"] = share.value, share.low, share.high


def _add_beta(row: dict[str, Any], beta: betas.Beta | None, slope: betas.Beta | None) -> None:
    if beta is not None:
        row["beta_flags"] = ", ".join(beta.flags) or None
        if beta.told:
            row["beta"], row["beta_low"], row["beta_high"] = beta[:3]
    if slope is not None:
        row["beta_d0"], row["beta_d0_low"], row["beta_d0_high"] = slope[:3]
