"""An image that does not open, in the words of who uses it: the sample, and what to do."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vtc.data.findings import holding_folder
from vtc.data.images import ImageFault
from vtc.errors import InputError


@contextmanager
def naming_samples(root: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Make an InputError of an ImageFault: with the sample (of `rows`), and the way out."""
    try:
        yield
    except ImageFault as fault:
        users = [row["sample_id"] for row in rows if fault.image in row["images"]]
        more = f" (and {len(users) - 1} more)" if len(users) > 1 else ""
        who = f"sample {users[0]}{more}: " if users else ""
        raise InputError(f"{who}{fault}; {_way_out(root, fault)}") from None


def _way_out(root: Path, fault: ImageFault) -> str:
    near = holding_folder(root, [fault.image]) if fault.reason == "missing" else None
    if near is not None:
        return (
            f"it stands in {near}: give --images {near} (to check-data, where sources have roots "
            "of their own)"
        )
    return (
        f"'vtc check-data SAMPLES --images {root} --rejects FILE -o CLEAN' lists all that do not "
        "open and sets their rows aside"
    )
