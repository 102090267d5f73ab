"""Rows written as they come: a table that need not fit in memory, and is published whole."""

import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vtc.tables.atomic import replacing
from vtc.tables.spec import Table

_GROUP = 4096


class Spool(AbstractContextManager):
    """A growing Parquet file in a hidden folder, `beside` where it is to go if that is a file.

    The folder goes when the context ends; what was not published goes with it.
    """

    def __init__(self, spec: Table, footer: Mapping[str, Any], beside: str | None = None):
        import pyarrow.parquet as pq

        from vtc.tables.arrow import schema

        self.spec = spec
        self.footer = dict(footer)
        self.n_rows = 0
        parent = Path(beside).parent if beside not in (None, "-") else None
        name = Path(beside).name if parent is not None and beside else spec.name
        self._folder = tempfile.TemporaryDirectory(
            prefix=f".{name}.", suffix=".partial", dir=parent, ignore_cleanup_errors=True
        )
        self._file = Path(self._folder.name) / f"{spec.name}.parquet"
        self._writer = pq.ParquetWriter(self._file, schema(spec, self.footer), compression="zstd")
        self._waiting: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Take one more row."""
        self._waiting.append(row)
        self.n_rows += 1
        if len(self._waiting) >= _GROUP:
            self._flush()

    def rows(self) -> list[dict[str, Any]]:
        """All rows, in memory; none can be added afterwards."""
        import pyarrow.parquet as pq

        self.close()
        return pq.ParquetFile(self._file).read().to_pylist()

    def publish(self, out: str | Path) -> None:
        """Move the table to `out`, which must stand in the folder of `beside`."""
        self.close()
        with replacing(out) as partial:
            self._file.replace(partial)

    def close(self) -> None:
        """Finish the file."""
        if self._writer.is_open:
            self._flush()
            self._writer.close()

    def __exit__(self, *exc: object) -> None:
        if self._writer.is_open:
            self._writer.close()
        self._folder.cleanup()

    def _flush(self) -> None:
        from vtc.tables.arrow import to_arrow

        if self._waiting:
            table = to_arrow(self._waiting, self.spec)
            self._writer.write_table(table.cast(self._writer.schema))
            self._waiting = []
