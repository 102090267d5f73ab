"""Reading tables: Parquet, CSV and JSON lines, from files or stdin, with faults named by place."""

import io
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vtc.errors import InputError
from vtc.tables.cells import checked, from_text, number
from vtc.tables.spec import Table
from vtc.tables.streams import stdin
from vtc.tables.text import parse_csv_rows, parse_json_array, parse_json_rows

__all__ = [
    "Read",
    "number",
    "parse_json_array",
    "parse_json_rows",
    "read_rows",
    "read_text",
    "stream_rows",
]


_NAMED = 12  # Columns that a message lists.
_BATCH = 8192  # Rows of a Parquet file held at a time.


class Read(NamedTuple):
    """Rows of a table, and the footer of the artifact they came from (empty for CSV and JSON)."""

    rows: list[dict[str, Any]]
    footer: dict[str, Any]


class Stream(NamedTuple):
    """Rows of a table as they are asked for, and the footer of the artifact they come from."""

    rows: Iterator[dict[str, Any]]
    footer: dict[str, Any]


class _Raw(NamedTuple):
    """Rows as the file has them; the cells of a CSV are all text."""

    rows: list[dict[str, Any]]
    footer: dict[str, Any]
    is_csv: bool = False


def read_rows(
    path: str | Path,
    spec: Table | None = None,
    *,
    empty: bool = False,
    unsaid: Mapping[str, Any] | None = None,
) -> Read:
    """Read a table from a Parquet, CSV, JSON or JSON-lines file, or from stdin as `-`.

    With a `spec`, a Parquet artifact must be that table at that version, and all its required
    columns must be there with cells of their types; a table without rows is refused unless
    `empty`. `unsaid` has what columns hold that are missing. Without a spec, rows come as they
    are; an empty CSV cell is None.
    Raises InputError naming the file, the row (from 0) and the column.
    """
    raw = _read_any(path)
    if spec is None:
        rows = [_none_if_empty(row) for row in raw.rows] if raw.is_csv else raw.rows
        return Read(rows, raw.footer)
    name = title(path)
    _check_identity(raw.footer, spec, name)
    if not raw.rows and not empty:
        raise InputError(f"{name} has no rows")
    return Read(_check_rows(raw, spec, name, unsaid or {}), raw.footer)


def stream_rows(path: str | Path, columns: Collection[str] | None = None) -> Stream:
    """A table as rows that come as they are asked for; a Parquet file need not fit in memory.

    Rows come as `read_rows` gives them without a spec; of a Parquet file only `columns`, where
    they are named. Raises InputError as `read_rows`, for damage when it is met.
    """
    if str(path) == "-" or not _is_parquet(Path(path)):
        whole = read_rows(path)
        return Stream(iter(whole.rows), whole.footer)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(str(path), error) from None
    names = file.schema_arrow.names
    wanted = names if columns is None else [name for name in names if name in columns]
    footer = footer_of(file.schema_arrow.metadata or {}, str(path))
    return Stream(_batches(file, wanted, str(path)), footer)


def _is_parquet(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False  # `read_rows` says what is wrong with it.


def _batches(file: Any, columns: list[str], name: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    try:
        for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, error) from None


def _damaged(name: str, error: Exception) -> InputError:
    first = (str(error).splitlines() or ["unreadable"])[0]
    return InputError(f"{name} is a damaged or truncated Parquet file: {first}")


def title(path: str | Path) -> str:
    """What a message calls a path: `-` is stdin."""
    return "stdin" if str(path) == "-" else str(path)


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file; raises InputError naming it if it is absent or no text."""
    try:
        return file_bytes(Path(path)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None


def file_bytes(path: Path) -> bytes:
    """The bytes of a file; raises InputError naming it if it cannot be read."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a table file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _read_any(path: str | Path) -> _Raw:
    name = title(path)
    data = stdin().read() if str(path) == "-" else file_bytes(Path(path))
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
    if "\0" in text:
        raise InputError(f"{name} is neither Parquet nor text (it holds a zero byte)")
    if text.lstrip()[:1] in ("[", "{"):
        return _Raw(parse_json_rows(text, name), {})
    return _Raw(parse_csv_rows(text, name), {}, is_csv=True)


def _read_parquet(data: bytes, name: str) -> _Raw:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(data)).read()
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(name, error) from None
    return _Raw(rows, footer_of(table.schema.metadata or {}, name))


def footer_of(metadata: dict[bytes, bytes], name: str) -> dict[str, Any]:
    """The footer of vtc in a Parquet file's metadata, {} if another program wrote the file.

    Raises InputError naming the file if it is no JSON object.
    """
    try:
        footer = json.loads(metadata.get(b"vtc", b"{}"))
    except ValueError:
        footer = None
    if not isinstance(footer, dict):
        raise InputError(f"{name}: its 'vtc' footer is not a JSON object")
    return footer


def _none_if_empty(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if cell == "" else cell for key, cell in row.items()}


def _check_identity(footer: dict[str, Any], spec: Table, name: str) -> None:
    found = (footer.get("table"), footer.get("version"))
    if footer and found != (spec.name, spec.version):
        raise InputError(
            f"{name}: need table {spec.name} v{spec.version}, found {found[0]} v{found[1]}"
        )


def _check_rows(
    raw: _Raw, spec: Table, name: str, unsaid: Mapping[str, Any]
) -> list[dict[str, Any]]:
    required = [column.name for column in spec.columns if not column.nullable]
    complete = []
    for index, row in enumerate(raw.rows):
        missing = [column for column in required if column not in row and column not in unsaid]
        if missing:
            raise InputError(
                f"{name}{f', row {index}' if index else ''}: {_columns(missing)} of table "
                f"{spec.name} {'is' if len(missing) == 1 else 'are'} missing; it has {_have(row)}"
            )
        if raw.is_csv:
            row = {c.name: from_text(row[c.name], c) for c in spec.columns if c.name in row}
        row = {**unsaid, **row}
        where = f"{name}, row {index}"
        complete.append({c.name: checked(row.get(c.name), c, where) for c in spec.columns})
    return complete


def _columns(names: list[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"column{'s' * (len(names) > 1)} {', '.join(quoted[:_NAMED])}{more}"


def _have(row: Mapping[str, Any]) -> str:
    """The columns that a row has, the first of many."""
    names = sorted(map(str, row))
    more = f", ... ({len(names)} columns)" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more if names else "none"
