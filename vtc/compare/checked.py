"""Scores rows of a file as numbers that can be: what `vtc fit` asks of a point, and the doubt."""

from collections.abc import Mapping, Sequence
from typing import Any

from vtc.errors import InputError
from vtc.law.cells import place_of, placed, point
from vtc.tables.read import number

# Columns that a law does not read, with the ends of what they can be.
_COLUMNS = (
    ("stderr", 0.0, 1.0, "a standard error of a share is between 0 and 1"),
    ("chance", 0.0, 1.0, "it is a share between 0 and 1"),
    ("n_items", 1.0, None, "a score is of at least 1 item"),
    ("visual_tokens_repeated", 1.0, None, "tokens are given at least once"),
)


def checked(rows: Sequence[Mapping[str, Any]], source: str) -> list[dict[str, Any]]:
    """The rows, each of which then knows its place in the file `source`.

    Raises InputError naming file, row and column for V below 1, scores and errors that are no
    shares or do not add up to 1, and a standard error, a chance level, a number of items or of
    repeats that cannot be.
    """
    found = []
    for index, row in enumerate(rows):
        place = place_of(row, source, index)
        point(row, place, "nominal")
        for column, low, high, why in _COLUMNS:
            if row.get(column) in (None, ""):
                continue
            value = number(row[column], f"{place}, column '{column}'")
            if value < low or (high is not None and value > high):
                raise InputError(f"{place}: {column} is {value:g}; {why}")
        found.append(placed(row, place))
    return found
