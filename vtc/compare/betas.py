"""The exponent of V of each compressor: what `vtc fit --by compressor` gives, alpha shared."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vtc.errors import NoAnswerError
from vtc.law.points import MIN_POINTS
from vtc.law.run import Fitted, Material, Request, fit_laws
from vtc.tables.compressors import compressor_name

Row = Mapping[str, Any]
Key = tuple[str, str | None, str | None, str]
"""Task, benchmark (None: all of the task), encoder, and the compressor with its settings."""


class Beta(NamedTuple):
    """An exponent of V and the ends of its interval, with the flags of its fit."""

    value: float
    low: float | None
    high: float | None
    flags: tuple[str, ...]


def betas(rows: Sequence[Row], by: str, level: float) -> dict[Key, Beta]:
    """The beta of every compressor of scores rows that has a law.

    Of several LLM sizes alpha is shared by the compressors of a task; of one size there is no
    alpha, and each law is fitted alone. Compressors of one V, or of fewer than four runs, have
    none.
    """
    parts: dict[tuple[str, str | None, str | None], list[Row]] = defaultdict(list)
    for row in rows:
        benchmark = row["benchmark"] if by == "benchmark" else None
        parts[row["task"], benchmark, row.get("encoder")].append(row)
    found: dict[Key, Beta] = {}
    for key, own in parts.items():
        usable = _usable(own)
        names = list(dict.fromkeys(compressor_name(row) for row in usable))
        for law in _laws(usable, len(names), level):
            name = law.points.group or names[0]
            row = law.row
            flags = tuple(row["flags"])
            found[(*key, str(name))] = Beta(
                row["beta"], row.get("beta_low"), row.get("beta_high"), flags
            )
    return found


def _usable(rows: Sequence[Row]) -> list[Row]:
    tokens: dict[str | None, set[int]] = defaultdict(set)
    runs: dict[str | None, set[tuple]] = defaultdict(set)
    for row in rows:
        name = compressor_name(row)
        tokens[name].add(row["visual_tokens"])
        runs[name].add((row["run_id"], row["visual_tokens"]))
    return [
        row
        for row in rows
        if len(tokens[compressor_name(row)]) > 1
        and len(runs[compressor_name(row)]) >= MIN_POINTS
        and not row.get("visual_tokens_repeated")
    ]


def _laws(rows: Sequence[Row], n_compressors: int, level: float) -> list[Fitted]:
    if not n_compressors:
        return []
    several = len({row["n_params"] for row in rows}) > 1
    request = Request(
        table="scores",
        by="compressor" if n_compressors > 1 else None,
        share="alpha" if several and n_compressors > 1 else None,
        level=level,
        n_draws=0,
    )
    try:
        return fit_laws(request, Material(rows), lambda reason: None)
    except NoAnswerError:
        return []
