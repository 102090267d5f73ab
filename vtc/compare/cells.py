"""The cells of a comparison: the runs of one compressor at one V, by task, LLM and encoder."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from typing import Any, NamedTuple

from vtc.errors import InputError
from vtc.tables.compressors import compressor_name

Row = Mapping[str, Any]


class Field(NamedTuple):
    """What is compared: compressors on one task (or benchmark) with one LLM and encoder."""

    task: str
    benchmark: str | None
    backbone: str
    n_params: int
    encoder: str | None

    @property
    def title(self) -> str:
        """What a message calls it."""
        return f"{self.benchmark or self.task}, {self.backbone}"


class Run(NamedTuple):
    """One trained model's score on a field: the mean over the field's benchmarks."""

    run_id: str
    seed: int | None
    score: float
    stderr: float | None
    n_items: int | None
    chance: float | None


@dataclass(frozen=True)
class Cell:
    """The runs, one a seed, of a compressor at V; `label` names it with its settings."""

    field: Field
    label: str
    compressor: str
    settings: str | None
    visual_tokens: int
    repeats: int
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> list[int]:
        """The seeds that are known, ascending."""
        return sorted(run.seed for run in self.runs if run.seed is not None)


def cells_of(rows: Sequence[Row], by: str = "task") -> list[Cell]:
    """The cells of scores rows by `task`, a run's score the mean over its benchmarks, or by
    `benchmark`; in the order of field, V and label.

    Raises InputError for rows that do not compare: benchmarks scored by several rules or of
    several numbers of items, a run without a benchmark that others have, two runs of one cell and
    seed, and rows without a compressor.
    """
    _refuse_uneven(rows)
    runs: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        benchmark = row["benchmark"] if by == "benchmark" else None
        field = Field(row["task"], benchmark, row["backbone"], row["n_params"], row.get("encoder"))
        repeats = int(row.get("visual_tokens_repeated") or 1)
        runs[field, row["run_id"], row["visual_tokens"], repeats].append(row)
    wanted: dict[Field, set[str]] = defaultdict(set)
    for (field, *_), own in runs.items():
        wanted[field].update(row["benchmark"] for row in own)
    cells: dict[tuple, list[Run]] = defaultdict(list)
    for (field, run_id, tokens, repeats), own in runs.items():
        name, settings = own[0].get("compressor"), own[0].get("compressor_settings")
        if not name:
            raise InputError(f"run {run_id} has no compressor; fill the column 'compressor'")
        label = str(compressor_name(own[0]))
        run = _run(field, run_id, own, wanted[field])
        cells[field, tokens, label, name, settings, repeats].append(run)
    found = [
        Cell(field, label, name, settings, tokens, repeats, _distinct(field, label, tokens, own))
        for (field, tokens, label, name, settings, repeats), own in cells.items()
    ]
    return sorted(found, key=_order)


def _order(cell: Cell) -> tuple:
    field = cell.field
    place = (field.task, field.benchmark or "", field.n_params, field.backbone)
    return (*place, field.encoder or "", cell.visual_tokens, cell.label)


def _refuse_uneven(rows: Sequence[Row]) -> None:
    """Raise InputError where rows of one benchmark are not of the same items and rule."""
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(row["benchmark"], row)
        for column, what in (("metric", "scored by"), ("parser", "scored by"), ("n_items", "of")):
            one, two = other.get(column), row.get(column)
            if one != two and None not in (one, two):
                things = " items" if column == "n_items" else ""
                raise InputError(
                    f"benchmark {row['benchmark']} is {what} {one}{things} in run "
                    f"{other['run_id']}, {two}{things} in run {row['run_id']}; compare runs that "
                    "answered the same items, scored alike"
                )


def _run(field: Field, run_id: str, rows: Sequence[Row], wanted: set[str]) -> Run:
    names = [row["benchmark"] for row in rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"run {run_id} has benchmark '{twice}' twice at V = {rows[0]['visual_tokens']}; give "
            "each table once, scores or predictions"
        )
    missing = sorted(wanted - set(names))
    if missing:
        raise InputError(
            f"run {run_id} has no row of benchmark '{missing[0]}', which other runs of "
            f"{field.title} have; evaluate it, or compare --by benchmark"
        )
    n = len(rows)
    errors, counts, chances = (_every(rows, name) for name in ("stderr", "n_items", "chance"))
    return Run(
        str(run_id),
        rows[0].get("seed"),
        fsum(row["score"] for row in rows) / n,
        # Benchmarks do not share images: their errors are independent.
        None if errors is None else sqrt(fsum(error**2 for error in errors)) / n,
        None if counts is None else int(sum(counts)),
        None if chances is None else fsum(chances) / n,
    )


def _every(rows: Sequence[Row], column: str) -> list[float] | None:
    """The cells of a column; None if one is empty."""
    cells = [row.get(column) for row in rows]
    known = [cell for cell in cells if cell is not None]
    return known if len(known) == len(cells) else None


def _distinct(field: Field, label: str, tokens: int, runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs of a cell, by seed; two of one seed would count one training twice."""
    by_seed: dict[int, Run] = {}
    for run in runs:
        if run.seed is None:
            continue
        other = by_seed.setdefault(run.seed, run)
        if other is not run:
            raise InputError(
                f"{field.title}: runs {other.run_id} and {run.run_id} are both of {label} at V = "
                f"{tokens}, seed {run.seed}; compare runs of one recipe, one a seed"
            )
    return tuple(sorted(runs, key=lambda run: (run.seed is None, run.seed or 0, run.run_id)))
