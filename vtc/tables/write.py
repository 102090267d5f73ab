"""Writing rows: Parquet with a footer, CSV, JSON lines, or a table for people."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtc.errors import InputError, naming_stdout
from vtc.tables.atomic import refuse_existing, replacing
from vtc.tables.spec import Table
from vtc.tables.streams import stdout

FORMATS = ("table", "json", "csv", "parquet")
_SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}


def resolve_format(out: str | None, fmt: str | None) -> str:
    """The format to write: as asked, else by the suffix of `out`, else a table.

    Raises InputError for a suffix that names no format, or another one than `fmt`.
    """
    suffix = Path(str(out)).suffix.lower() if out not in (None, "-") else ""
    if fmt is not None:
        meant = _SUFFIXES.get(suffix, fmt)
        if fmt not in (meant, "table"):
            raise InputError(f"{out} is named as {meant}, but --format says {fmt}; leave out one")
        return fmt
    if out in (None, "-"):
        return "table"
    if suffix not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        raise InputError(f"{out}: no format has the suffix '{suffix}'; use {known}, or --format")
    return _SUFFIXES[suffix]


def check_output(out: str | Path, fmt: str | None, force: bool) -> str:
    """The format that `out` will have, after asking whether rows can be written there at all.

    Long commands call it before they start. Raises InputError if the file exists (and `force`
    is not set), is a folder, cannot be written, or if its format is no file format.
    """
    if not str(out):
        raise InputError("-o is empty; give the name of a file, or - for stdout")
    if Path(out).is_dir():
        raise InputError(f"{out} is a folder; give the name of a file")
    chosen = resolve_format(str(out), fmt)
    if str(out) == "-":
        if stdout().isatty() and chosen == "parquet":
            raise InputError("Parquet is binary: send it to a file with -o, or into a pipe")
        return chosen
    if chosen == "table":
        raise InputError(f"{out}: format 'table' is for the screen; use csv, json or parquet")
    refuse_existing(out, force)
    return chosen


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
    chosen = check_output(out, fmt, force)
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
        return "".join(_json_line(row) for row in complete).encode()
    if fmt == "csv":
        return _csv(complete, spec).encode()
    raise InputError(f"format '{fmt}' is for the screen; use csv, json or parquet")


def write_stdout(
    rows: Sequence[dict[str, Any]], spec: Table, fmt: str, footer: Mapping[str, Any] | None = None
) -> None:
    """Write rows to stdout as csv, json or parquet.

    Raises InputError for Parquet to a terminal.
    """
    check_output("-", fmt, force=False)
    data = encode(rows, spec, fmt, footer)
    with naming_stdout():
        stdout().write(data)
        stdout().flush()


def _parquet(rows: Sequence[dict[str, Any]], spec: Table, footer: dict[str, Any]) -> bytes:
    import pyarrow.parquet as pq

    from vtc.tables.arrow import to_arrow

    buffer = io.BytesIO()
    pq.write_table(to_arrow(rows, spec, footer), buffer, compression="zstd")
    return buffer.getvalue()


class _Lines(list):
    """Lines of a CSV as they come from csv.writer, each ended by a line feed alone."""

    def write(self, line: str) -> None:
        # The writer's own line end is \r\n: Python before 3.13 quotes a cell with a carriage
        # return only if the line end holds one.
        self.append(line.removesuffix("\r\n") + "\n")


def _csv(rows: Sequence[Mapping[str, Any]], spec: Table) -> str:
    lines = _Lines()
    writer = csv.DictWriter(lines, spec.column_names, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _flat(cell) for name, cell in row.items()} for row in rows)
    return "".join(lines)


def _flat(cell: Any) -> Any:
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell


def _json_line(row: dict[str, Any]) -> str:
    # JSON has no NaN and no infinity: they are written as null.
    finite = {
        name: None if isinstance(cell, float) and not math.isfinite(cell) else cell
        for name, cell in row.items()
    }
    return json.dumps(finite, ensure_ascii=False, default=_plain) + "\n"


def _plain(cell: Any) -> Any:
    """A number of an array library as Python's own."""
    return cell.item() if hasattr(cell, "item") else str(cell)
