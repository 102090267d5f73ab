"""One run given twice is no replicate: rows that nothing tells apart are refused."""

from collections.abc import Mapping, Sequence
from typing import Any

from vtc.errors import InputError
from vtc.law.cells import place_of

_ABOUT = ("note", "source")  # Said of a row, not by which runs differ.


def refuse_copies(rows: Sequence[Mapping[str, Any]], source: str) -> None:
    """Raise InputError naming two rows that are equal in every column but notes and sources.

    As two points they would narrow the law's intervals. Numbers are compared as numbers, so that
    a CSV and a Parquet file of one table are copies too.
    """
    seen: dict[frozenset, str] = {}
    for index, row in enumerate(rows):
        place = place_of(row, source, index)
        cells = frozenset(
            (name, _comparable(cell))
            for name, cell in row.items()
            if cell not in (None, "") and name not in _ABOUT
        )
        first = seen.setdefault(cells, place)
        if first != place:
            raise InputError(
                f"{place} is {first} again, equal in every column, and would count as a second "
                "run; leave it out, or tell the runs apart by a column such as seed or run_id"
            )


def _comparable(cell: Any) -> Any:
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return str(cell)
