"""Rows of the catalog's tables: those shipped, and a user's own beside them."""

import csv
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from vtc.errors import InputError

VARIABLE = "VTC_CATALOG"
"""Names a folder with llms.csv, encoders.csv or gpus.csv of one's own: the same columns."""

Row = Mapping[str, str]


def read(name: str, key: str) -> list[tuple[Row, str]]:
    """The rows of a table of the catalog, each with where it stands, the user's own last.

    `key` is the column of the name. Raises InputError for an own file that cannot be read, lacks
    the name or the source of a row, or names what is there already.
    """
    shipped = resources.files("vtc.catalog").joinpath(f"{name}.csv").read_text(encoding="utf-8")
    found = [(row, f"{name}.csv, row {n}") for n, row in enumerate(_parsed(shipped))]
    folder = os.environ.get(VARIABLE)
    if not folder:
        return found
    if not Path(folder).is_dir():
        raise InputError(f"{VARIABLE} is {folder}, which is no folder; unset it or make the folder")
    own = Path(folder) / f"{name}.csv"
    if own.is_file():
        try:
            rows = _parsed(own.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{own} cannot be read as text ({error})") from None
        taken = {row[key].lower() for row, _ in found}
        for number, row in enumerate(rows):
            where = f"{own}, row {number}"
            for column in (key, "source"):
                text(row, column, where)
            if row[key].lower() in taken:
                raise InputError(f"{where}: '{row[key]}' is in the catalog already; rename it")
            taken.add(row[key].lower())
            found.append((row, where))
    return found


def text(row: Row, column: str, where: str) -> str:
    """A cell that must not be empty; raises InputError naming the place."""
    cell = (row.get(column) or "").strip()
    if not cell:
        raise InputError(f"{where}: column '{column}' is missing or empty")
    return cell


def positive(row: Row, column: str, where: str, default: float | None = None) -> float:
    """A number above zero, or the default of an empty cell; raises InputError naming the place."""
    if default is not None and not (row.get(column) or "").strip():
        return default
    cell = text(row, column, where)
    try:
        number = float(cell)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise InputError(f"{where}: {column} is '{cell}', no number above zero")
    return number


def whole(row: Row, column: str, where: str, default: int | None = None) -> int:
    """A whole number of at least 0, or the default of an empty cell; raises InputError."""
    cell = (row.get(column) or "").strip()
    if not cell and default is not None:
        return default
    if not cell.isdecimal():
        raise InputError(f"{where}: {column} is '{cell}', no whole number")
    return int(cell)


def _parsed(content: str) -> list[Row]:
    return list(csv.DictReader(content.splitlines()))
