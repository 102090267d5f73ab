"""CSV, JSON and JSON lines as rows; faults are named by row or line."""

import csv
import io
import json
import re
from typing import Any

from vtc.errors import InputError

# A cell may hold a whole document; Python's own limit is 131,072 characters.
csv.field_size_limit(2**31 - 1)
_SPACE = re.compile(r"[ \t\r\n]*")


def parse_json_rows(text: str, name: str) -> list[dict[str, Any]]:
    """Rows of a JSON array of objects or of JSON lines; faults are named by row or line."""
    rows = parse_json_array(text, name) if text.lstrip().startswith("[") else _lines(text, name)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{name}, row {index}: expected a JSON object, found {str(row)[:40]}")
    return rows


def parse_json_array(text: str, name: str) -> list[Any]:
    """Elements of a JSON array, one by one, so that a fault is named by its row (from 0)."""
    decoder = json.JSONDecoder()
    rows: list[Any] = []
    at = skip_space(text, text.index("[") + 1)
    while text[at : at + 1] != "]":
        row, at = decode_element(decoder, text, at, f"{name}, row {len(rows)}")
        rows.append(row)
        at = skip_space(text, at)
        if text[at : at + 1] == ",":
            at = skip_space(text, at + 1)
        elif text[at : at + 1] != "]":
            raise InputError(f"{name}, row {len(rows) - 1}: broken JSON (no ',' or ']' after it)")
    if text[at + 1 :].strip():
        raise InputError(f"{name}: broken JSON (more text after the closing ']')")
    return rows


def _lines(text: str, name: str) -> list[Any]:
    decoder = json.JSONDecoder()
    rows = []
    # Only \n ends a JSON line: str.splitlines would also cut at U+2028 inside a string.
    for index, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            row, end = decode_element(decoder, line.strip(), 0, f"{name}, line {index}")
            if end != len(line.strip()):
                raise InputError(f"{name}, line {index}: broken JSON (more text after the object)")
            rows.append(row)
    return rows


def decode_element(decoder: json.JSONDecoder, text: str, at: int, where: str) -> tuple[Any, int]:
    """The JSON value at `at`, and where it ends; a fault raises InputError naming `where`."""
    try:
        row, end = decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: broken JSON ({error.msg})") from None
    except RecursionError:
        raise InputError(f"{where}: broken JSON (nested too deeply)") from None
    if "\\ud" in text[at:end].lower():
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InputError(f"{where}: half a surrogate pair is no text") from None
    return row, end


def skip_space(text: str, at: int) -> int:
    """The position of the next character that is no JSON white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def parse_csv_rows(text: str, name: str) -> list[dict[str, str]]:
    """Rows of a CSV text with a header; every row must have a cell for each column."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        header = _header(next(reader, []), name)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{name}, line {reader.line_num}: {len(cells)} cells, "
                    f"but the header has {len(header)}"
                )
            rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: broken CSV ({error})") from None
    return rows


def _header(cells: list[str], name: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    if len(header) == 1 and (found := [mark for mark in (";", "\t") if mark in header[0]]):
        raise InputError(f"{name}: its cells are separated by {found[0]!r}; separate them by ','")
    for column in header:
        if not column:
            raise InputError(f"{name}: a column of the CSV header has no name")
        if header.count(column) > 1:
            raise InputError(f"{name}: the CSV header names column '{column}' twice")
    return header
