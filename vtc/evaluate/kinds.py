"""What a file holds, told by its head. Light: a fit of scores loads none of the benchmarks."""

from pathlib import Path

_HEAD = 100_000  # Bytes of a text file that hold its header, or its first row.


def is_predictions(table: str) -> bool:
    """Whether a file is a table of predictions, by its footer or its columns; never asks stdin."""
    if table == "-" or not Path(table).is_file():
        return False
    with open(table, "rb") as file:
        head = file.readline(_HEAD)
    if not head.startswith(b"PAR1"):
        first = head.decode("utf-8", "replace").strip()
        return '"prediction"' in first or "prediction" in first.split(",")
    import pyarrow.parquet as pq

    try:
        return "prediction" in pq.ParquetFile(table).schema_arrow.names
    except (OSError, ValueError):  # Damage is named where the rows are read.
        return False
