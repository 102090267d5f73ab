"""The folder in which a run is trained: one process at a time, and what it leaves for the next.

`OUT/NAME.training` stands beside the run `OUT/NAME` from the first step until the run is whole. It
holds the lock and the checkpoints. Light: no torch, so that a second process is refused at once.
"""

import fcntl
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.tables.atomic import sweep
from vtc.train.processes import is_first

LOCK = "lock"
TRIAL = "trial"


def training_folder(run: Path) -> Path:
    """Where the run is trained: beside it."""
    return run.with_name(f"{run.name}.training")


@contextmanager
def locked(runs: Sequence[Path]) -> Iterator[None]:
    """Hold the training folders of all `runs`; they go when they are left without a checkpoint.

    What a killed process left half-written beside a run is taken away. Under several processes
    the first one holds the locks for all. Raises InputError naming the process that trains a run.
    """
    if not is_first():
        yield
        return
    with ExitStack() as held:
        for run in runs:
            held.enter_context(_outer_folder(run.parent))
            held.enter_context(_locked(run))
        yield


@contextmanager
def _outer_folder(out: Path) -> Iterator[None]:
    """Make the folder of the runs; take it away again if nothing came of it."""
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):
                out.rmdir()


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    folder = training_folder(run)
    descriptor = _take(folder, run)
    try:
        sweep(run)
        # What a killed process had half written, or tried and not yet thrown away.
        for leftover in (*folder.glob(".*.partial"), folder / TRIAL):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        if not any(path.name != LOCK for path in folder.iterdir()):
            shutil.rmtree(folder)
        # Closed last: the folder is ours until it is gone.
        os.close(descriptor)


def _take(folder: Path, run: Path) -> int:
    """Open and lock the folder's lock file; the descriptor holds it, and the kernel frees it."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise InputError(
                f"run {run} is being trained by {holder}; wait for it, or give another -o"
            ) from None
        if _still_there(folder / LOCK, descriptor):
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_about_us()).encode(), 0)
            return descriptor
        # The process before us finished, and took the folder away, between open and lock.
        os.close(descriptor)


def _still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _about_us() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().isoformat(sep=" ", timespec="seconds"),
        "command": ["vtc", *sys.argv[1:]],
    }


def _holder(descriptor: int) -> str:
    try:
        about = json.loads(os.pread(descriptor, 1 << 16, 0))
        return f"process {about['pid']} on {about['host']} since {about['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
