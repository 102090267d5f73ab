"""Reading predictions to score: our own table, or the minimal one of anybody else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.evaluate.aggregate import SHARED
from vtc.evaluate.items import answers_of
from vtc.tables import specs
from vtc.tables.cells import checked
from vtc.tables.read import read_rows, title

NEEDED = (
    *SHARED,
    "item_id",
    "image_id",
    "references",
    "choices",
    "category",
    "group",
    "about",
    "prediction",
    "fault",
)
"""The columns of a predictions table that scoring reads."""

GIVEN = ("run_id", "backbone", "family", "n_params", "visual_tokens", "compressor", "encoder")
"""Columns of a run that a caller may give for a table that lacks them."""

_COLUMNS = [column for column in specs.PREDICTIONS.columns if column.name in NEEDED]


def read_predictions(path: str | Path, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows with the columns NEEDED, from a predictions table or from bare rows.

    A row needs `prediction` and `references` (a list, a JSON list, or one text). Of the rest,
    `given` fills what the table lacks; `metric` in `given` wins over the table's. Without them
    run_id is the file's name, backbone the run_id, compressor "unknown", item_id the row's
    position and image_id the item_id (so that no items share an image).

    Raises InputError naming file, row and column; a column that is nowhere names the option.
    """
    read = read_rows(path)
    name = title(path)
    found = read.footer.get("table", specs.PREDICTIONS.name)
    if found != specs.PREDICTIONS.name:
        raise InputError(f"{name}: need table {specs.PREDICTIONS.name}, found {found}")
    if not read.rows:
        raise InputError(f"{name} has no rows")
    given = {key: value for key, value in given.items() if value is not None}
    stem = "stdin" if str(path) == "-" else Path(path).stem
    return [_complete(row, index, given, name, stem) for index, row in enumerate(read.rows)]


def _complete(
    row: Mapping[str, Any], index: int, given: Mapping[str, Any], name: str, stem: str
) -> dict[str, Any]:
    where = f"{name}, row {index}"
    cells = {key: row[key] for key in NEEDED if row.get(key) is not None}
    for key, value in given.items():
        if key != "metric" and key in cells:
            _refuse_contradiction(cells[key], value, key, where)
        cells[key] = value
    if "prediction" in row:
        cells.setdefault("prediction", "")  # An empty answer, which CSV cannot tell from none.
    cells.setdefault("run_id", stem)
    cells.setdefault("backbone", cells["run_id"])
    cells.setdefault("compressor", "unknown")
    cells.setdefault("item_id", str(index))
    cells.setdefault("image_id", str(cells["item_id"]))
    if "references" in cells:
        cells["references"] = answers_of(cells["references"])
    for column in _COLUMNS:
        if column.name not in cells and not column.nullable:
            state = "empty" if column.name in row else "missing"
            raise InputError(f"{where}: column '{column.name}' is {state}; {_way_out(column.name)}")
    return {column.name: checked(cells.get(column.name), column, where) for column in _COLUMNS}


def _refuse_contradiction(cell: Any, value: Any, key: str, where: str) -> None:
    column = next(column for column in _COLUMNS if column.name == key)
    if checked(cell, column, where) != checked(value, column, _flag(key)):
        raise InputError(
            f"{where}: column '{key}' says {cell}, but {_flag(key)} says {value}; "
            "leave the option out"
        )


def _flag(column: str) -> str:
    return f"--{column.replace('_', '-')}"


def _way_out(column: str) -> str:
    if column in (*GIVEN, "benchmark", "task", "metric"):
        return f"add it, or give {_flag(column)}"
    return "add it to the table"
