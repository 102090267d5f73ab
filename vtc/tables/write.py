"""Writing rows: Parquet with a footer, CSV, JSON lines, or a table for people."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.tables.atomic import refuse_existing, replacing
from vtc.tables.spec import Table

FORMATS = ("table", "json", "csv", "parquet")
_SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}


def resolve_format(out: str | None, fmt: str | None) -> str:
    """The format to write: as asked, else by the suffix of `out`, else a table.

    Raises InputError for a suffix that names no format.
    """
    if fmt is not None:
        return fmt
    if out in (None, "-"):
        return "table"
    suffix = Path(str(out)).suffix.lower()
    if suffix not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        raise InputError(f"{out}: no format has the suffix '{suffix}'; use {known}, or --format")
    return _SUFFIXES[suffix]


def write_rows(
    rows: Sequence[dict[str, Any]],
    spec: Table,
    out: str | Path,
    *,
    fmt: str | None = None,
    force: bool = False,
    footer: Mapping[str, Any] | None = None,
) -> None:
    """Write rows to a file, whole or not at all.

    Raises InputError if the file exists and `force` is not set.
    """
    refuse_existing(out, force)
    chosen = resolve_format(str(out), fmt)
    data = encode(rows, spec, chosen, footer)
    with replacing(out) as partial:
        partial.write_bytes(data)


def encode(
    rows: Sequence[dict[str, Any]], spec: Table, fmt: str, footer: Mapping[str, Any] | None = None
) -> bytes:
    """The bytes of a table in `fmt`: parquet, csv or json (one object a line)."""
    if fmt == "parquet":
        return _parquet(rows, spec, dict(footer or {}))
    complete = [spec.complete(row) for row in rows]
    if fmt == "json":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in complete).encode()
    if fmt == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, spec.column_names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _flat(cell) for name, cell in row.items()} for row in complete)
        return text.getvalue().encode()
    raise InputError(f"format '{fmt}' cannot be written to a file; use csv, json or parquet")


def write_stdout(
    rows: Sequence[dict[str, Any]], spec: Table, fmt: str, footer: Mapping[str, Any] | None = None
) -> None:
    """Write rows to stdout as csv, json or parquet.

    Raises InputError for Parquet to a terminal.
    """
    if fmt == "parquet" and sys.stdout.isatty():
        raise InputError("Parquet is binary: send it to a file with -o, or into a pipe")
    sys.stdout.buffer.write(encode(rows, spec, fmt, footer))
    sys.stdout.buffer.flush()


def _parquet(rows: Sequence[dict[str, Any]], spec: Table, footer: dict[str, Any]) -> bytes:
    import pyarrow.parquet as pq

    from vtc.tables.arrow import to_arrow

    buffer = io.BytesIO()
    pq.write_table(to_arrow(rows, spec, footer), buffer, compression="zstd")
    return buffer.getvalue()


def _flat(cell: Any) -> Any:
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell
