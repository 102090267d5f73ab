"""Table specs as Arrow schemas, and rows as Arrow tables. Loads pyarrow."""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vtc.tables.spec import Column, Table

_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "list<string>": pa.list_(pa.string()),
    "list<float>": pa.list_(pa.float64()),
    "list<turn>": pa.list_(pa.struct([("role", pa.string()), ("text", pa.string())])),
    "list<region>": pa.list_(
        pa.struct([("text", pa.string()), ("x", pa.float64()), ("y", pa.float64())])
    ),
}


def schema(spec: Table, footer: dict[str, Any] | None = None) -> pa.Schema:
    """The Arrow schema of a table: units and meanings as field metadata, the footer as `vtc`."""
    head = {"table": spec.name, "version": spec.version, **(footer or {})}
    return pa.schema(
        [_field(column) for column in spec.columns],
        metadata={"vtc": json.dumps(head, default=str)},
    )


def to_arrow(
    rows: Sequence[dict[str, Any]], spec: Table, footer: dict[str, Any] | None = None
) -> pa.Table:
    """Rows as an Arrow table of the given spec."""
    return pa.Table.from_pylist([spec.complete(row) for row in rows], schema=schema(spec, footer))


def _field(column: Column) -> pa.Field:
    about = {"meaning": column.meaning, "unit": column.unit}
    return pa.field(column.name, _TYPES[column.type], nullable=column.nullable, metadata=about)
