"""Reading tables: Parquet, CSV and JSON lines, from files or stdin, with faults named by place."""

import csv
import io
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

from vtc.errors import InputError
from vtc.tables.spec import Column, Table


class Read(NamedTuple):
    """Rows of a table, and the footer of the artifact they came from (empty for CSV and JSON)."""

    rows: list[dict[str, Any]]
    footer: dict[str, Any]


def read_rows(path: str | Path, spec: Table | None = None) -> Read:
    """Read a table from a Parquet, CSV, JSON or JSON-lines file, or from stdin as `-`.

    With a `spec`, a Parquet artifact must be that table at that version, and all its required
    columns must be there with cells of their types.
    Raises InputError naming the file, the row and the column.
    """
    read = _read_any(path)
    if spec is None:
        return read
    name = _title(path)
    _check_identity(read.footer, spec, name)
    return Read(_check_rows(read.rows, spec, name), read.footer)


def read_footer(path: str | Path) -> dict[str, Any]:
    """The footer of a Parquet artifact: table, version, command, settings, inputs, versions."""
    return _read_any(path).footer


def number(cell: Any, where: str) -> float:
    """A cell as a finite float; raises InputError naming `where` for anything else."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        raise InputError(f"{where}: '{cell}' is not a number") from None
    if not math.isfinite(value):
        raise InputError(f"{where}: {cell} is not a finite number")
    return value


def _title(path: str | Path) -> str:
    return "stdin" if str(path) == "-" else str(path)


def _read_any(path: str | Path) -> Read:
    name = _title(path)
    if str(path) == "-":
        data = sys.stdin.buffer.read()
    else:
        data = _file_bytes(Path(path))
    if not data.strip():
        raise InputError(f"{name} is empty; expected a table (Parquet, CSV or JSON)")
    if data[:4] == b"PAR1":
        return _read_parquet(data, name)
    if Path(name).suffix.lower() == ".parquet":
        raise InputError(f"{name} is not a Parquet file (its first bytes are not PAR1)")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{name} is neither Parquet nor UTF-8 text") from None
    if text.lstrip()[0] in "[{":
        return Read(parse_json_rows(text, name), {})
    return Read(_read_csv(text, name), {})


def _file_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a table file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _read_parquet(data: bytes, name: str) -> Read:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(data)).read()
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{name} is a damaged or truncated Parquet file: {first}") from None
    metadata = table.schema.metadata or {}
    footer = json.loads(metadata[b"vtc"]) if b"vtc" in metadata else {}
    return Read(table.to_pylist(), footer)


def parse_json_rows(text: str, name: str) -> list[dict[str, Any]]:
    """Rows of a JSON array of objects or of JSON lines; faults are named by row or line."""
    if text.lstrip().startswith("["):
        rows = _parse_array(text, name)
    else:
        rows = []
        for index, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"{name}, line {index}: broken JSON ({error.msg})") from None
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{name}, row {index}: expected a JSON object, found {str(row)[:40]}")
    return rows


def _parse_array(text: str, name: str) -> list[Any]:
    """Elements of a JSON array, one by one, so that a fault is named by its row."""
    decoder = json.JSONDecoder()
    rows: list[Any] = []
    at = _skip_space(text, text.index("[") + 1)
    while text[at : at + 1] != "]":
        try:
            row, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise InputError(f"{name}, row {len(rows)}: broken JSON ({error.msg})") from None
        rows.append(row)
        at = _skip_space(text, at)
        if text[at : at + 1] == ",":
            at = _skip_space(text, at + 1)
        elif text[at : at + 1] != "]":
            raise InputError(f"{name}, row {len(rows) - 1}: broken JSON (no ',' or ']' after it)")
    return rows


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _read_csv(text: str, name: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text))
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise InputError(
                f"{name}, line {reader.line_num}: the number of cells differs from the header's"
            )
        rows.append({key.strip(): (cell if cell != "" else None) for key, cell in row.items()})
    return rows


def _check_identity(footer: dict[str, Any], spec: Table, name: str) -> None:
    if not footer:
        return
    found = (footer.get("table"), footer.get("version"))
    if found != (spec.name, spec.version):
        raise InputError(
            f"{name}: need table {spec.name} v{spec.version}, found {found[0]} v{found[1]}"
        )


def _check_rows(rows: list[dict[str, Any]], spec: Table, name: str) -> list[dict[str, Any]]:
    if not rows:
        raise InputError(f"{name} has no rows")
    have = set(rows[0])
    missing = [c.name for c in spec.columns if c.name not in have and not c.nullable]
    if missing:
        raise InputError(
            f"{name}: column '{missing[0]}' of table {spec.name} is missing; "
            f"it has {', '.join(sorted(have))}"
        )
    return [
        {c.name: _cell(row.get(c.name), c, f"{name}, row {index}") for c in spec.columns}
        for index, row in enumerate(rows)
    ]


def _cell(cell: Any, column: Column, where: str) -> Any:
    where = f"{where}, column '{column.name}'"
    if cell is None:
        if not column.nullable and not column.type.startswith(("list", "string")):
            raise InputError(f"{where}: empty")
        return None if column.nullable else ([] if column.type.startswith("list") else "")
    if column.type == "string":
        return str(cell)
    if column.type == "bool":
        return cell if isinstance(cell, bool) else str(cell).lower() in ("true", "1", "yes")
    if column.type.startswith("list"):
        return _list_cell(cell, where)
    value = number(cell, where)
    if column.type == "int":
        if value != int(value):
            raise InputError(f"{where}: {cell} is not a whole number")
        return int(cell) if isinstance(cell, int) else int(value)
    return value


def _list_cell(cell: Any, where: str) -> list[Any]:
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except json.JSONDecodeError:
            raise InputError(f"{where}: '{cell[:40]}' is not a JSON list") from None
    if not isinstance(cell, list):
        raise InputError(f"{where}: expected a list, found {str(cell)[:40]}")
    return cell
