"""Writing files so that a reader never sees half of one and a finished one is never lost."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vtc.errors import InputError


def refuse_existing(path: str | Path, force: bool) -> None:
    """Raise InputError if `path` exists and may not be overwritten, or has no folder to stand in."""
    path = Path(path)
    if path.exists() and not force:
        raise InputError(f"{path} exists; give another name, or --force to overwrite it")
    if not path.parent.is_dir():
        raise InputError(f"folder {path.parent} of the output {path.name} does not exist; make it")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it to disk and rename it to `path`."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    write_with(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_with(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, then rename it to `path`."""
    with replacing(path) as partial:
        write(partial)
