"""A row of a benchmark's data, its cells read by name and type; faults name the column."""

import ast
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from vtc.data.faults import RowFault
from vtc.data.pictures import path_of
from vtc.errors import InputError

_MISSING = ("", "nan", "none")
_SHOWN = 160


class DataRow:
    """One row as its file or data set has it; `where` names it in messages.

    `keep` takes a picture's bytes and gives the path it is known by from then on.
    """

    def __init__(self, cells: Mapping[str, Any], where: str, keep: Callable[[bytes], str]):
        self.cells = cells
        self.where = where
        self._keep = keep

    def text(self, column: str) -> str:
        """A text; numbers (ids) count as text. Raises InputError if it is missing or empty."""
        cell = self._cell(column)
        if isinstance(cell, bool | list | dict | bytes) or (
            isinstance(cell, float) and not math.isfinite(cell)
        ):
            raise self.fault(column, "a text", cell)
        if isinstance(cell, float) and cell.is_integer():
            return str(int(cell))
        if not str(cell).strip():
            raise self.fault(column, "a text", cell)
        return str(cell)

    def maybe(self, column: str) -> str | None:
        """A text, None where the cell is empty, missing, or says "nan" (as MMBench's do)."""
        cell = self.cells.get(column)
        if cell is None or str(cell).strip().lower() in _MISSING:
            return None
        return self.text(column)

    def integer(self, column: str) -> int:
        """A whole number of any type: int8, int64, 3.0 or "3"."""
        cell = self._cell(column)
        try:
            if isinstance(cell, bool):
                raise ValueError
            value = float(cell) if not isinstance(cell, int) else cell
            if value != int(value):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise self.fault(column, "a whole number", cell) from None
        return int(cell) if isinstance(cell, int | str) and str(cell).isdigit() else int(value)

    def texts(self, column: str) -> list[str]:
        """A list of texts, also written as JSON or as Python writes a list; may be empty."""
        cell = self._cell(column)
        found = literal_list(cell) if isinstance(cell, str) else cell
        if not isinstance(found, list):
            raise self.fault(column, "a list of texts", cell)
        if any(isinstance(item, list | dict) or item is None for item in found):
            raise self.fault(column, "a list of texts", cell)
        return [str(item) for item in found]

    def answers(self, column: str) -> list[str]:
        """Humans' answers: a list of texts, or of VQAv2's objects with an `answer` each."""
        cell = self._cell(column)
        found = literal_list(cell) if isinstance(cell, str) else cell
        if not isinstance(found, list):
            raise self.fault(column, "a list of answers", cell)
        given = [item.get("answer") if isinstance(item, Mapping) else item for item in found]
        answers = [answer for answer in given if isinstance(answer, str)]
        if not given or len(answers) < len(given):
            raise self.fault(column, "a list of answers", cell)
        return answers

    def images(self, *columns: str) -> tuple[str, ...]:
        """The paths of the pictures in some columns, {bytes, path}, bytes or a path each."""
        return tuple(self._image(column) for column in columns)

    def has(self, column: str) -> bool:
        """Whether the row has something in a column."""
        return self.cells.get(column) is not None

    def fault(self, column: str, wanted: str, cell: Any) -> InputError:
        """What to raise for a cell of the wrong kind."""
        return InputError(
            f"{self.where}, column '{column}': expected {wanted}, found {type(cell).__name__} "
            f"{_short(cell)}; the row: {self.shown()}"
        )

    def shown(self) -> str:
        """The row in a few words, pictures left out."""
        cells = {key: _short(cell, 24) for key, cell in self.cells.items()}
        return _cut(", ".join(f"{key}={cell}" for key, cell in cells.items()), _SHOWN)

    def _image(self, column: str) -> str:
        cell = self._cell(column)
        try:
            return path_of(cell, self._keep)
        except RowFault as fault:
            raise InputError(
                f"{self.where}, column '{column}': {fault.reason}; the row: {self.shown()}"
            ) from None

    def _cell(self, column: str) -> Any:
        if column not in self.cells:
            have = ", ".join(map(str, self.cells))
            raise InputError(
                f"{self.where}: no column '{column}'; it has {have}; the row: {self.shown()}"
            )
        cell = self.cells[column]
        if cell is None:
            raise InputError(f"{self.where}, column '{column}': empty; the row: {self.shown()}")
        return cell


def literal_list(text: str) -> list[Any] | None:
    """The list that a text writes, as JSON or as Python does; None if it writes none."""
    text = text.strip()
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    return found if isinstance(found, list) else None


def _short(cell: Any, length: int = 60) -> str:
    if isinstance(cell, bytes):
        return f"{len(cell)} bytes"
    if isinstance(cell, Mapping) and isinstance(cell.get("bytes"), bytes):
        return f"{len(cell['bytes'])} bytes"
    return _cut(repr(cell), length)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
