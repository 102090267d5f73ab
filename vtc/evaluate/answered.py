"""Answers that runs have given, kept beside the output while an evaluation goes on.

`OUT.answering` stands beside the output OUT from the first answer until OUT is written: a lock,
what the answers are of, and the answers, a line a batch. A line is handed to the system at once, so
that a killed process loses none that it had written, and to the disk every second. Light: no torch.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vtc.errors import InputError
from vtc.tables.atomic import replacing, sweep
from vtc.tables.lock import Held, sign, take

_LOCK, _ABOUT, _LINES = "lock", "about.json", "answers.jsonl"
_SYNC_SECONDS = 1.0


class Answer(NamedTuple):
    """What a run said to an item, how it was found, and why there is none (`fault`)."""

    text: str
    n_generated: int
    n_text_tokens: int
    answered_by: str | None
    fault: str | None


class Answers:
    """Answers by run and benchmark, then by the item's place; on disk too, if there is a file.

    Those that a run gives at another V than its own are kept apart by `visual_tokens`.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._found: dict[tuple[str, str, int | None], dict[int, Answer]] = {}
        self._file = -1
        self._synced = time.monotonic()
        if file is not None:
            whole = self._read(file)
            self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            # A killed process may have left half a line.
            os.truncate(self._file, whole)
        self.n_found = len(self)

    def __len__(self) -> int:
        return sum(map(len, self._found.values()))

    def of(
        self, run_id: str, benchmark: str, visual_tokens: int | None = None
    ) -> Mapping[int, Answer]:
        """The answers of a run to a benchmark, by the item's place in it."""
        return self._found.get((run_id, benchmark, visual_tokens), {})

    def add(
        self,
        run_id: str,
        benchmark: str,
        answers: Mapping[int, Answer],
        visual_tokens: int | None = None,
    ) -> None:
        """Take some more answers of a run to a benchmark."""
        self._take(run_id, benchmark, answers, visual_tokens)
        if self._file >= 0 and answers:
            at = {} if visual_tokens is None else {"visual_tokens": visual_tokens}
            found = {"run": run_id, "benchmark": benchmark, **at, "answers": answers}
            line = json.dumps(found).encode() + b"\n"
            if os.write(self._file, line) != len(line):
                raise OSError(28, os.strerror(28), _LINES)
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file)
                self._synced = time.monotonic()

    def close(self) -> None:
        """Put what is written on disk."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def _take(
        self,
        run_id: str,
        benchmark: str,
        answers: Mapping[int, Answer],
        visual_tokens: int | None,
    ) -> None:
        self._found.setdefault((run_id, benchmark, visual_tokens), {}).update(answers)

    def _read(self, file: Path) -> int:
        """Read a file's lines; how many bytes of it are whole lines."""
        whole = 0
        for line in file.read_bytes().splitlines(keepends=True) if file.exists() else ():
            try:
                found = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            own = {int(place): Answer(*cells) for place, cells in found["answers"].items()}
            self._take(found["run"], found["benchmark"], own, found.get("visual_tokens"))
            whole += len(line)
        return whole


def left(out: Path) -> Path:
    """The folder in which the answers of an output are kept until it is written."""
    return out.with_name(f"{out.name}.answering")


def is_left(out: Path) -> bool:
    """Whether an evaluation with this output was stopped, and its answers are kept."""
    return (left(out) / _LINES).is_file()


def refuse_left(out: Path) -> None:
    """Raise InputError if an evaluation with this output was stopped: its answers are kept."""
    if is_left(out):
        raise InputError(
            f"{left(out)} holds the answers of an evaluation that was stopped; go on with "
            "--resume, or begin again with --force"
        )


def differ(begun: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first thing in which two descriptions of answers differ, as words; None if nothing."""
    for kind in ("runs", "benchmarks"):
        old, new = begun.get(kind, {}), now.get(kind, {})
        if list(old) != list(new):
            return f"{kind} {', '.join(old)}, not {', '.join(new)}"
        for name in new:
            if old[name] != new[name]:
                return f"another {kind[:-1]} '{name}' than there is now"
    for name, shown in begun.get("images", {}).items():
        if shown != now.get("images", {}).get(name):
            return f"benchmark '{name}' with images that have changed since"
    old, new = begun.get("settings", {}), now.get("settings", {})
    for name in dict.fromkeys([*new, *old]):
        if old.get(name) != new.get(name):
            return f"{name} = {old.get(name)}, not {new.get(name)}"
    return None


def finished(out: Path, about: Mapping[str, Any]) -> bool:
    """Whether the output is written already, and nothing is left of its making.

    Raises InputError if it holds answers of something else, or does not say of what.
    """
    if not out.exists() or is_left(out):
        return False
    from vtc.tables.read import stream_rows

    begun = stream_rows(out).footer.get("settings", {}).get("answers_of")
    if begun is None:
        raise InputError(f"{out} exists and does not say of what; give another -o, or --force")
    changed = differ(begun, about)
    if changed:
        raise InputError(f"{out} is finished, with {changed}; give another -o, or --force")
    return True


@contextmanager
def keeping(
    out: Path | None, about: Mapping[str, Any], resume: bool = False, force: bool = False
) -> Iterator[Answers]:
    """The answers of an evaluation, with those of a stopped one if it is to `resume`.

    `about` says what they are of: runs, benchmarks and settings, as JSON has them. The output must
    be written inside; then the folder goes. It stays, with the answers in it, on any failure.
    Without an output they are kept in memory alone.

    Raises InputError naming the process that works on the same output; for a stopped evaluation
    that is neither resumed nor begun again by `force`; for one of something else, with what it was.
    """
    if out is None:
        yield Answers()
        return
    folder = left(out)
    descriptor = _lock(folder, out)
    try:
        sweep(out)
        if force:
            _empty(folder)
        elif not resume:
            refuse_left(out)
        _check(folder, about)
        answers = Answers(folder / _LINES)
        try:
            yield answers
        finally:
            answers.close()
        shutil.rmtree(folder)
    finally:
        if folder.exists() and not _has_answers(folder):
            shutil.rmtree(folder)
        # Closed last: the folder is ours until it is gone.
        os.close(descriptor)


def _lock(folder: Path, out: Path) -> int:
    """Make the folder and lock it; the descriptor holds it, and the kernel frees it."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            descriptor = take(folder / _LOCK)
        except FileNotFoundError:
            continue
        except Held as holder:
            raise InputError(
                f"{out} is being made by {holder}; wait for it, or give another -o"
            ) from None
        try:
            ours = os.path.samestat(os.stat(folder / _LOCK), os.fstat(descriptor))
        except FileNotFoundError:
            ours = False
        if ours:
            sign(descriptor)
            return descriptor
        # The process before us finished, and took the folder away, between open and lock.
        os.close(descriptor)


def _check(folder: Path, about: Mapping[str, Any]) -> None:
    """Say what the answers are of; raise InputError if those that are there are of another."""
    file = folder / _ABOUT
    if _has_answers(folder):
        changed = differ(json.loads(file.read_text()), about)
        if changed:
            raise InputError(
                f"{folder} holds answers of {changed}; give another -o, or begin again with --force"
            )
        return
    _empty(folder)
    with replacing(file) as partial:
        partial.write_text(json.dumps(about))


def _has_answers(folder: Path) -> bool:
    lines = folder / _LINES
    return lines.is_file() and lines.stat().st_size > 0 and (folder / _ABOUT).is_file()


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        if file.name != _LOCK:
            file.unlink()
