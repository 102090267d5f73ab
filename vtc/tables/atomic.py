"""Writing files so that a reader never sees half of one and a finished one is never lost."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vtc.errors import InputError


def refuse_existing(path: str | Path, force: bool, *, folder: bool = False) -> None:
    """Raise InputError if `path` may not be overwritten, or the folder around it not written to.

    Of an output that is a `folder` itself the folders around it may be missing: they will be made.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is neither a file nor a folder; use - for stdout")
    if path.exists() and not force:
        raise InputError(f"{path} exists; give another name, or --force to overwrite it")
    around = existing_parent(path) if folder else path.parent
    if around.is_file():
        raise InputError(f"{around} is a file; the output {path.name} needs a folder there")
    if not around.is_dir():
        raise InputError(f"folder {around} of the output {path.name} does not exist; make it")
    if not os.access(around, os.W_OK):
        raise InputError(f"folder {around} of the output {path.name} may not be written to")
    target = _followed(path)
    _refuse_unwritable(target, around if target == path else target.parent)


def existing_parent(path: str | Path) -> Path:
    """The nearest of the folders around `path` that is there."""
    return next(each for each in Path(path).parents if each.exists() or each == each.parent)


def _refuse_unwritable(path: Path, around: Path) -> None:
    """Raise InputError if no file can be made in `around`: a name too long, /proc, no space."""
    trial = around / f".{path.name}.{os.getpid()}.partial"
    try:
        os.close(os.open(trial, os.O_CREAT | os.O_WRONLY))
        # Another process of the same training may have swept it away.
        trial.unlink(missing_ok=True)
    except OSError as error:
        # Of /proc the system says that the file, which is to be made, does not exist.
        why = "no files are made there" if error.errno == errno.ENOENT else error.strerror
        raise InputError(f"{path} cannot be written ({why}); name another file or folder") from None


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it to disk and rename it to `path`.

    On any failure, an interrupt among them, the temporary file goes and `path` stays as it was.
    """
    path = _followed(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        if error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success rename it to `path`.

    Folders around it are made. With `force` a folder that stands there goes only after the new one
    is whole. On any failure the temporary folder goes, with those made around it, and `path` stays
    as it was. Raises InputError as `refuse_existing`.
    """
    path = _followed(path).absolute()
    refuse_existing(path, force, folder=True)
    with making_parents(path), _replacing_folder(path) as partial:
        yield partial


@contextmanager
def making_parents(path: Path) -> Iterator[None]:
    """Make the folders around an absolute `path`; those that hold nothing when left go again."""
    there = existing_parent(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for around in path.parents[: path.parents.index(there)]:
            with suppress(OSError):
                around.rmdir()


@contextmanager
def _replacing_folder(path: Path) -> Iterator[Path]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for entry in (*partial.rglob("*"), partial):
            _sync(entry)
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if old.is_dir() and path.exists():
            shutil.rmtree(old)
        elif old.exists() and not path.exists():
            os.replace(old, path)
        elif old.exists():
            old.unlink()


def sweep(path: str | Path) -> None:
    """Take away what killed processes left half-written beside `path`.

    A folder that one had just moved aside, to put its new one in the place, comes back. Nobody may
    be writing `path` meanwhile: call it under a lock.
    """
    path = _followed(path).absolute()
    ours = re.compile(rf"\.{re.escape(path.name)}\.\d+\.(partial|old)")
    for left in [entry for entry in path.parent.iterdir() if ours.fullmatch(entry.name)]:
        if left.suffix == ".old" and not path.exists():
            os.replace(left, path)
        elif left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _followed(path: str | Path) -> Path:
    """What a link points to: that is replaced, and the link stays."""
    return Path(path).resolve() if Path(path).is_symlink() else Path(path)


def _sync(path: Path) -> None:
    """Put a file, or the renames in a folder, on disk, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no fsync; a full disk is a failure.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
