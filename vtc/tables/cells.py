"""Cells checked against their column: numbers, booleans, text and lists, faults named by place."""

import json
import math
from typing import Any

from vtc.errors import InputError
from vtc.tables.quantity import parse_quantity
from vtc.tables.spec import Column

_TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no")
_INT64 = range(-(2**63), 2**63)


def number(cell: Any, where: str) -> float:
    """A cell as a finite float; raises InputError naming `where` for anything else."""
    try:
        if isinstance(cell, bool):
            raise TypeError
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: '{str(cell)[:40]}' is not a number{_meant(cell)}") from None
    if not math.isfinite(value):
        raise InputError(f"{where}: {cell} is not a finite number")
    return value


def _meant(cell: Any) -> str:
    """How a table writes what a person wrote as 7b."""
    try:
        return f"; write {parse_quantity(str(cell)):g}"
    except ValueError:
        return ""


def checked(cell: Any, column: Column, where: str) -> Any:
    """A cell as its column's type; raises InputError naming `where` and the column."""
    where = f"{where}, column '{column.name}'"
    if cell is None:
        if column.nullable:
            return None
        raise InputError(f"{where}: empty")
    if column.type == "string":
        if isinstance(cell, list | dict):
            raise InputError(f"{where}: expected text, found {str(cell)[:40]}")
        return str(cell)
    if column.type == "bool":
        return _bool(cell, where)
    if column.type == "int":
        return _int(cell, where)
    if column.type == "float":
        return number(cell, where)
    return _list(cell, column.type, where)


def from_text(cell: str, column: Column) -> Any:
    """What an empty CSV cell means in its column: nothing, or the empty text."""
    if cell == "" and (column.nullable or column.type != "string"):
        return None
    return cell


def _int(cell: Any, where: str) -> int:
    # Text and whole numbers are read as they stand: a float would round beyond 2^53.
    try:
        if isinstance(cell, bool):
            raise ValueError
        value = int(cell) if isinstance(cell, str | int) else None
    except ValueError:
        value = None
    if value is None:
        real = number(cell, where)
        if not real.is_integer():
            raise InputError(f"{where}: {cell} is not a whole number")
        value = int(real)
    if value not in _INT64:
        raise InputError(f"{where}: {cell} is beyond 64 bits")
    return value


def _bool(cell: Any, where: str) -> bool:
    if isinstance(cell, bool):
        return cell
    if str(cell).lower() in _TRUE:
        return True
    if str(cell).lower() in _FALSE:
        return False
    raise InputError(f"{where}: '{str(cell)[:40]}' is neither true nor false")


def _list(cell: Any, kind: str, where: str) -> list[Any]:
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (json.JSONDecodeError, RecursionError):
            raise InputError(f"{where}: '{cell[:40]}' is not a JSON list") from None
    if not isinstance(cell, list):
        raise InputError(f"{where}: expected a list, found {str(cell)[:40]}")
    return [_ITEMS[kind](item, f"{where}, item {index}") for index, item in enumerate(cell)]


def _text_item(item: Any, where: str) -> str:
    if not isinstance(item, str):
        raise InputError(f"{where}: expected text, found {str(item)[:40]}")
    return item


def _turn_item(item: Any, where: str) -> dict[str, str]:
    if not isinstance(item, dict) or not all(
        isinstance(item.get(k), str) for k in ("role", "text")
    ):
        raise InputError(f"{where}: expected {{role, text}}, found {str(item)[:40]}")
    return {"role": item["role"], "text": item["text"]}


def _region_item(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        raise InputError(f"{where}: expected {{text, x, y}}, found {str(item)[:40]}")
    x, y = (number(item.get(axis), f"{where}, {axis}") for axis in ("x", "y"))
    return {"text": item["text"], "x": x, "y": y}


_ITEMS = {
    "list<string>": _text_item,
    "list<float>": number,
    "list<turn>": _turn_item,
    "list<region>": _region_item,
}
