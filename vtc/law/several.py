"""Several tables fitted as one: the scores of runs that were evaluated one by one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.law.cells import CONVENTIONS, placed
from vtc.law.copies import refuse_copies
from vtc.law.points import read_table
from vtc.tables.read import title

_RUN = ("run_id", "visual_tokens", "visual_tokens_repeated", "task", "benchmark")


def read_tables(tables: Sequence[str]) -> list[dict[str, Any]]:
    """Rows to read points from, of all tables in turn; each knows where it stands.

    Raises InputError as `read_table`, for what `join` refuses, and for a row that is there twice.
    """
    refuse_twice(tables)
    if len(tables) == 1:
        rows = read_table(tables[0])
    else:
        rows = join({table: read_table(table) for table in tables})
    refuse_copies(rows, title(tables[0]))
    return rows


def join(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of several tables, by name.

    Raises InputError for a run that two of them score on one benchmark at one V, and for an LLM
    whose N they count differently.
    """
    rows: list[dict[str, Any]] = []
    seen: dict[tuple, str] = {}
    counts: dict[tuple, tuple[str, Any]] = {}
    for table, own in tables.items():
        for index, row in enumerate(own):
            place = f"{title(table)}, row {index}"
            key = tuple(map(row.get, _RUN))
            if row.get("run_id") is not None and seen.setdefault(key, place) != place:
                raise InputError(
                    f"{place}: run {row['run_id']} at V = {row.get('visual_tokens')} is in "
                    f"{seen[key]} too; give each run once"
                )
            _refuse_other_count(row, place, counts)
            rows.append(placed(row, place))
    return rows


def refuse_twice(tables: Sequence[str]) -> None:
    """Raise InputError if a file, or stdin, is named twice."""
    files = [table if table == "-" else str(Path(table).resolve()) for table in tables]
    for index, file in enumerate(files):
        if file in files[:index]:
            raise InputError(f"{title(tables[index])} is given twice; give each table once")


def _refuse_other_count(
    row: Mapping[str, Any], place: str, counts: dict[tuple, tuple[str, Any]]
) -> None:
    """Raise InputError if another table has another N for the row's LLM."""
    if row.get("backbone") is None:
        return
    for column in CONVENTIONS.values():
        if row.get(column) is None:
            continue
        first, count = counts.setdefault((row["backbone"], column), (place, row[column]))
        if str(count) != str(row[column]):
            raise InputError(
                f"{place}: {column} of {row['backbone']} is {row[column]}, in {first} it is "
                f"{count}; count N in one way"
            )
