"""Candidate runs from the user's own table."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vtc.catalog import llms
from vtc.errors import InputError
from vtc.law.design_llms import Sized, bare, sized
from vtc.law.points import Points
from vtc.tables.read import number, read_rows, title

_NAMES = ("llm", "backbone", "model")
_COUNTS = ("n_params", "n_params_b")
_COLUMNS = (*_NAMES, *_COUNTS, "visual_tokens", "compressor", "seeds", "gpu_hours")


class Wanted(NamedTuple):
    """A row: an LLM at a V; `hours` are its own GPU-hours, None to have them reckoned."""

    llm: Sized
    visual_tokens: int
    compressor: str | None = None
    seeds: int = 1
    hours: float | None = None


def read_candidates(path: str, points: Points) -> list[Wanted]:
    """The rows of a CSV, Parquet or JSON table of runs that could be made.

    Columns: visual_tokens; llm (or backbone, model: a name of the catalog, a folder or a size) or
    n_params or n_params_b; and, where wanted, compressor, seeds (how often at most) and gpu_hours.
    Raises InputError naming row and column, also for a run that is there twice.
    """
    name = title(path)
    rows = read_rows(path).rows
    if not rows:
        raise InputError(f"--candidates {name} has no rows")
    have = {column for row in rows for column in row}
    if "visual_tokens" not in have or not have.intersection((*_NAMES, *_COUNTS)):
        raise InputError(
            f"--candidates {name} needs columns visual_tokens and llm, n_params or n_params_b; "
            f"it has {', '.join(sorted(have))}; others that count: {', '.join(_COLUMNS[-3:])}"
        )
    found: dict[tuple, int] = {}
    wanted = []
    for index, row in enumerate(rows):
        where = f"{name}, row {index}"
        one = _wanted(row, where, points)
        key = (one.llm.other, one.llm.n_params, one.visual_tokens, one.compressor)
        if key in found:
            raise InputError(
                f"{where}: the same run stands in row {found[key]}; state in a column 'seeds' how "
                "often it may be made"
            )
        found[key] = index
        wanted.append(one)
    return wanted


def _wanted(row: Mapping[str, Any], where: str, points: Points) -> Wanted:
    hours = _positive(row, "gpu_hours", where)
    compressor = row.get("compressor")
    return Wanted(
        _llm(row, where, points),
        _whole(row, "visual_tokens", where),
        None if compressor is None else str(compressor),
        _whole(row, "seeds", where, 1),
        hours,
    )


def _llm(row: Mapping[str, Any], where: str, points: Points) -> Sized:
    named = _first(row, _NAMES)
    counted = _first(row, _COUNTS)
    count = None
    if counted is not None:
        cell = number(row[counted], f"{where}, column '{counted}'")
        count = llms.checked_count(cell, counted, where)
    if named is not None:
        try:
            found = sized(str(row[named]), points, where)
        except InputError:
            if count is None:
                raise
            # A name of the user's own, with its count beside it.
            return bare(count, points, where)._replace(name=str(row[named]))
        if count is not None and abs(count / found.n_params - 1) > 0.01:
            raise InputError(
                f"{where}: {counted} and {named} disagree: {found.name} has {found.n_params:,} "
                f"parameters, counted as {points.convention}"
            )
        return found
    if count is None:
        raise InputError(f"{where}: needs llm, n_params or n_params_b")
    return bare(count, points, where)


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if row.get(name) is not None), None)


def _whole(row: Mapping[str, Any], column: str, where: str, default: int | None = None) -> int:
    value = _positive(row, column, where)
    if value is None:
        if default is None:
            raise InputError(f"{where}: column '{column}' is missing or empty")
        return default
    if value < 1 or value != int(value):
        raise InputError(f"{where}: {column} is {value:g}; it must be a whole number, at least 1")
    return int(value)


def _positive(row: Mapping[str, Any], column: str, where: str) -> float | None:
    if row.get(column) is None:
        return None
    value = number(row[column], f"{where}, column '{column}'")
    if value <= 0:
        raise InputError(f"{where}: {column} is {value:g}; it must be above zero")
    return value
