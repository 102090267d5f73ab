"""The folder in which a run is trained: one process at a time, and what it leaves for the next.

`OUT/NAME.training` stands beside the run `OUT/NAME` from the first step until the run is whole. It
holds the lock and the checkpoints. Light: no torch, so that a second process is refused at once.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vtc.errors import InputError
from vtc.tables.atomic import sweep
from vtc.tables.lock import Held, sign, take
from vtc.train.processes import by_first

LOCK = "lock"
TRIAL = "trial"


def training_folder(run: Path) -> Path:
    """Where the run is trained: beside it."""
    return run.with_name(f"{run.name}.training")


@contextmanager
def locked(runs: Sequence[Path]) -> Iterator[None]:
    """Hold the training folders of all `runs`; they go when they are left without a checkpoint.

    That of a run which becomes whole meanwhile goes at once (`leave`).

    What a killed process left half-written beside a run is taken away. Under several processes
    the first one holds the locks for all. Raises InputError naming the process that trains a run.
    """
    with ExitStack() as held:
        by_first(lambda: _hold(runs, held))
        yield


def _hold(runs: Sequence[Path], held: ExitStack) -> None:
    for run in runs:
        held.enter_context(_outer_folder(run.parent))
        held.enter_context(_locked(run))


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
        # Of a run that became whole it is gone, and may be another process's by now.
        if _still_there(folder / LOCK, descriptor):
            _clear(folder)
        # Closed last: the folder is ours until it is gone.
        os.close(descriptor)


def leave(run: Path) -> None:
    """Take away the training folder of a run that is whole, the lock with it.

    Only the process that holds the lock may call it; others of its runs may still be training.
    """
    with suppress(FileNotFoundError):
        _clear(training_folder(run))


def _clear(folder: Path) -> None:
    if not any(path.name != LOCK for path in folder.iterdir()):
        shutil.rmtree(folder)


def _take(folder: Path, run: Path) -> int:
    """Open and lock the folder's lock file; the descriptor holds it, and the kernel frees it."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            descriptor = take(folder / LOCK)
        except FileNotFoundError:
            continue
        except Held as holder:
            raise InputError(
                f"run {run} is being trained by {holder}; wait for it, or give another -o"
            ) from None
        if _still_there(folder / LOCK, descriptor):
            sign(descriptor)
            return descriptor
        # The process before us finished, and took the folder away, between open and lock.
        os.close(descriptor)


def _still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
