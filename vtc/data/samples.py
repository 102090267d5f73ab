"""Reading samples for training: a checked samples table, or LLaVA JSON as it stands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vtc.data.conversations import RowFault, parse_row
from vtc.errors import InputError
from vtc.tables.read import Read, read_rows


class Samples(NamedTuple):
    """Rows of the samples table and the root their image paths are relative to."""

    rows: list[dict[str, Any]]
    image_root: Path


def read_conversations(source: str | Path) -> Read:
    """Rows of LLaVA JSON, JSON lines or a samples table, as they stand, and the footer.

    Raises InputError for a file that cannot be read or is another of our tables.
    """
    read = read_rows(source)
    table = read.footer.get("table", "samples")
    if table != "samples":
        raise InputError(f"{source}: need a samples table or LLaVA JSON, found table {table}")
    return read


def read_samples(files: Sequence[str | Path], images: str | Path | None = None) -> Samples:
    """Samples of several files (samples.parquet, LLaVA JSON or JSON lines), in order.

    The image root is `images`, else the one in the first table's footer, else the folder of the
    first file. Images are not opened here.

    Raises InputError naming file and row for a row that `check-data` would reject.
    """
    rows: list[dict[str, Any]] = []
    roots: list[str] = []
    for source in files:
        read = read_conversations(source)
        settings = read.footer.get("settings", {})
        roots.append(settings.get("image_root") or str(Path(source).resolve().parent))
        for index, row in enumerate(read.rows):
            try:
                rows.append(parse_row(row, f"{Path(source).stem}-{index}"))
            except RowFault as fault:
                raise InputError(
                    f"{source}, row {index}: {fault.reason}; run 'vtc check-data' to set such "
                    "rows aside"
                ) from None
    if not rows:
        raise InputError(f"{', '.join(map(str, files))}: no samples")
    if images is None and len(set(roots)) > 1:
        raise InputError(
            f"{files[0]} and {files[1]} have different image roots; give one with --images"
        )
    root = Path(images if images is not None else roots[0])
    if not root.is_dir():
        raise InputError(f"image root {root} is no folder; name it with --images")
    return Samples(rows, root.resolve())
