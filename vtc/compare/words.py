"""What a comparison says in sentences."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from vtc.compare.cells import Field
from vtc.compare.curves import Verdict
from vtc.compare.estimates import SeedNoise
from vtc.compare.pricing import Times
from vtc.tables.quantity import format_flops

Row = Mapping[str, Any]

_MOST_CELLS = 5  # That a sentence names.


class Segment(NamedTuple):
    """Who is best at a cost: alone, or tied with others."""

    cost: float
    leaders: tuple[str, ...]
    n_rivals: int

    @classmethod
    def of(cls, cost: float, verdicts: Mapping[str, Verdict]) -> "Segment":
        """The leaders of verdicts at a cost, the highest score first."""
        leaders = [label for label, one in verdicts.items() if one.place != "behind"]
        best = next(iter(verdicts.values())).best.label
        return cls(cost, tuple(sorted(leaders, key=lambda one: one != best)), len(verdicts))


def readings(level: float, times: Times | None, text_tokens: float) -> str:
    """How intervals and costs are to be read."""
    costs = (
        "FLOPs count encoder, compressor, question and the LLM's prefill"
        if times is None
        else f"times are those of {times.name}" + (f" on {times.device}" if times.device else "")
    )
    return (
        f"Intervals are of {100 * level:g} %: of the images and, where there are several, of the "
        f"training seeds. {costs}, {text_tokens:g} text tokens behind the image."
    )


def of_field(
    field: Field,
    rows: Sequence[Row],
    noise: SeedNoise | None,
    segments: Sequence[Segment],
    request: Any,
    times: Times | None,
) -> list[str]:
    """What one task (or benchmark), LLM and encoder say."""
    encoder = f" ({field.encoder})" if field.encoder else ""
    lines = [f"{field.title}{encoder}:", f"  {_noise(noise, rows)}"]
    lines += [f"  {line}" for line in (*_without_width(rows), *_missing(rows))]
    lines += [f"  {line}" for line in _same_v(rows)]
    lines += [f"  {line}" for line in _same_cost(segments, rows, times)]
    lines.append(f"  {_gap(rows, request)}")
    return lines


def _noise(noise: SeedNoise | None, rows: Sequence[Row]) -> str:
    if noise is None:
        return (
            "One run a cell: the intervals are of the images alone and leave the training's noise "
            "out; train more seeds."
        )
    lacks = "" if any(row.get("stderr_items") is not None for row in rows) else " (images unknown)"
    return (
        f"Between seeds the score of a run varies by {noise.variance**0.5:.3f} (sd), taken as "
        f"equal in all cells ({noise.df} degrees of freedom){lacks}."
    )


def _without_width(rows: Sequence[Row]) -> list[str]:
    """The cells whose items all scored alike, which says nothing of how others would score."""
    flat = [row for row in rows if row.get("stderr_items") == 0]
    if not flat:
        return []
    nothing = sum(row.get("score_low") == row.get("score_high") for row in flat)
    width = f"{nothing} intervals have no width" if nothing > 1 else "an interval has no width"
    return [
        f"All items scored alike in {_cells(flat)}: a standard error of 0 is no knowledge there, "
        f"{f'{width}, and ' if nothing else ''}places and ties with them are not to be trusted; "
        "score more items."
    ]


def _cells(rows: Sequence[Row]) -> str:
    """The first cells by compressor and V, and how many more there are."""
    named = [f"{row['compressor']} at V = {row['visual_tokens']}" for row in rows]
    more = len(named) - _MOST_CELLS
    return ", ".join(named[:_MOST_CELLS]) + (f" and {more} more" if more > 0 else "")


def _missing(rows: Sequence[Row]) -> list[str]:
    """The cells that have fewer seeds than others."""
    seeds = [{int(seed) for seed in (row.get("seeds") or "").split(",") if seed} for row in rows]
    every, lacking = sorted(set().union(*seeds)), []
    for row, own in zip(rows, seeds, strict=True):
        gone = [str(seed) for seed in every if seed not in own]
        if own and gone:
            lacking.append(f"{row['compressor']} at V = {row['visual_tokens']} ({', '.join(gone)})")
    return [f"Seeds are missing: {'; '.join(lacking)}."] if lacking else []


def _same_v(rows: Sequence[Row]) -> list[str]:
    lines = []
    for tokens, group in groupby(rows, key=lambda row: row["visual_tokens"]):
        own = list(group)
        if len(own) < 2:
            continue
        leaders = [row["compressor"] for row in own if row["same_v"] != "behind"]
        lines.append(f"V = {tokens}: {_led(own[0]['same_v_best'], leaders)} (of {len(own)}).")
    return lines


def _led(best: str, leaders: Sequence[str]) -> str:
    others = [name for name in leaders if name != best]
    if not others:
        return f"{best} is best"
    return f"{best}, not told apart from {', '.join(others)}"


def _same_cost(segments: Sequence[Segment], rows: Sequence[Row], times: Times | None) -> list[str]:
    column = "flops" if times is None else "time_ms"
    what = "equal FLOPs" if times is None else "equal time"
    unknown = [row for row in rows if row.get(column) is None]
    lines = []
    if unknown:
        every = len(unknown) == len(rows)
        if times is not None:
            why = f"no row of {times.name} is of {'them' if len(unknown) > 1 else 'it'}"
        elif every:
            why = (
                "the LLM's or encoder's shape is not known (give --llm and --encoder), or not "
                "what the compressor costs"
            )
        else:  # The LLM and the encoder are those of the rows that have one.
            why = "not known is what these compressors cost at these settings and V"
        named = "" if every else f" ({_cells(unknown)})"
        end = ", so that there is no reading at equal cost" if every else ""
        lines.append(
            f"Without a known cost: {len(unknown)} of {len(rows)} rows{named}; {why}{end}."
        )
    for _, group in groupby(
        (one for one in segments if one.n_rivals > 1), key=lambda one: one.leaders[0]
    ):
        lines.append(f"At {what}, {_stretch(list(group), times)}.")
    return lines


def _stretch(own: Sequence[Segment], times: Times | None) -> str:
    """A stretch of costs with one best compressor, and who is not told apart from it there."""
    ends = [_cost(own[0].cost, times), _cost(own[-1].cost, times)]
    where = ends[0] if len(own) == 1 else " to ".join(ends)
    best = own[0].leaders[0]
    others = list(dict.fromkeys(name for one in own for name in one.leaders[1:]))
    always = [name for name in others if all(name in one.leaders for one in own)]
    said = [
        f"not told apart from {', '.join(always)}" if always else "",
        f"nor at some of them from {', '.join(sorted(set(others) - set(always)))}"
        if always and len(always) < len(others)
        else f"at some of them not told apart from {', '.join(others)}"
        if others and not always
        else "",
    ]
    rivals = sorted({one.n_rivals for one in own})
    many = f"{rivals[0]}" if len(rivals) == 1 else f"{rivals[0]} to {rivals[-1]}"
    doubt = ", ".join(filter(None, said))
    return f"{where}: {best}{f', {doubt}' if doubt else ' is best'} (of {many})"


def _cost(cost: float, times: Times | None) -> str:
    """A cost with four digits, in which those of neighbours differ: the encoder is in all."""
    if times is not None:
        return f"{cost:.4g} ms"
    number, unit = format_flops(cost).split(" ", 1)
    scale = cost / float(number)
    # The same unit, one digit more.
    return f"{cost / 10 ** round(math.log10(scale)):.4g} {unit}"


def _gap(rows: Sequence[Row], request: Any) -> str:
    if not any(row["compressor"] == request.uncompressed for row in rows):
        return (
            f"No run of {request.uncompressed}, so that no share of the gap to the uncompressed "
            "model is known; name what stands for it with --uncompressed."
        )
    floors = list(dict.fromkeys(row["floor"] for row in rows))
    floor = floors[0] if len(floors) == 1 else "blind at the same V, or its nearest"
    if all(row.get("gap_closed") is None for row in rows):
        return (
            f"{request.uncompressed} is not told apart from the floor ({floor}): no gap to close."
        )
    top = max(row["visual_tokens"] for row in rows if row["compressor"] == request.uncompressed)
    return f"gap_closed: from the floor ({floor}) to {request.uncompressed} at V = {top}."


def of_left_out(count: int, total: int) -> str:
    """That rows of compressors inside the LLM are not compared."""
    return (
        f"Left out: {count} of {total} rows, whose tokens are dropped inside the LLM; its layers "
        "have no one V (visual_tokens_mean)."
    )


def of_untrained(rows: Sequence[Row]) -> list[str]:
    """The runs that answered at V that they were not trained at; a CSV has words for that."""
    found = {
        f"{row['compressor']} at V = {row['visual_tokens']}"
        for row in rows
        if str(row.get("visual_tokens_trained")).lower() in ("false", "no", "0")
    }
    return [f"Not trained at its V: {', '.join(sorted(found))}."] if found else []


def of_betas(rows: Sequence[Row], n_sizes: int) -> list[str]:
    """How the exponents were fitted, and of which compressors the points tell none."""
    how = (
        "alpha shared by the compressors of a task"
        if n_sizes > 1
        else "each alone, as one LLM size tells no alpha"
    )
    there = list(dict.fromkeys(row["compressor"] for row in rows if row.get("beta") is not None))
    every = list(dict.fromkeys(row["compressor"] for row in rows))
    lacking = ", ".join(name for name in every if name not in there)
    if not there:
        said = "the points tell none"
    else:
        said = f"{how}; none is told of {lacking}" if lacking else how
    return [
        f"beta, of `vtc fit --by compressor`: {said}. beta_d0: with D held at 0, the slope over "
        "the V that were measured."
    ]
