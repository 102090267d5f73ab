"""Checking samples before a training starts: every row parsed, every image opened.

Rows are read, checked and passed on one by one, so that memory holds a few hundred of them, and of
all others no more than a hash and the names of their images.
"""

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from vtc.data.conversations import parse_row
from vtc.data.faults import RowFault
from vtc.data.findings import MISSING, Summary
from vtc.data.images import ImageFault, check_image
from vtc.data.judge import Judge
from vtc.data.pictures import Keep, refuse
from vtc.data.sources import Source

Row = dict[str, Any]
_BATCH = 256
_AHEAD = 4


@dataclass
class _Entry:
    """A row on its way: its place, what was made of it, and why it is no good if so."""

    source: str
    row: int
    sample: Row | None = None
    fault: RowFault | None = None
    notes: list[tuple[str, str | None]] = field(default_factory=list)
    has_id: bool = False


class Check:
    """Sorts the rows of sources into clean samples and findings.

    `samples` takes each clean row, `findings` a row for each that is set aside (and, marked as
    kept, for each that is noted). Every distinct image is opened once, in `workers` threads,
    below `root`. `keep` takes pictures that rows hold themselves. A row equal to an earlier one
    is set aside; one that only shares its id is renamed (LLaVA's mix holds many).
    """

    def __init__(
        self,
        root: str | Path,
        samples: Callable[[Row], object],
        findings: Callable[[Row], object],
        *,
        judge: Judge | None = None,
        keep: Keep = refuse,
        workers: int = 4,
        advance: Callable[[int], object] = lambda n: None,
    ):
        self.root = root
        self.samples = samples
        self.findings = findings
        self.judge = judge
        self.keep = keep
        self.workers = workers
        self.advance = advance
        self.found = Summary()
        self._images: dict[str, Future[_Verdict] | _Verdict] = {}
        self._rows_seen: set[bytes] = set()
        self._contents: set[bytes] = set()
        self._ids: set[str] = set()
        self._copies: Counter[str] = Counter()

    def run(self, sources: Sequence[Source]) -> Summary:
        """Check all rows of all sources, in order.

        Raises InputError for a source that cannot be read to its end.
        """
        waiting: deque[list[_Entry]] = deque()
        with ThreadPoolExecutor(max_workers=self.workers) as pool:
            for batch in self._batches(sources):
                for path in _paths(batch):
                    if path not in self._images:
                        self._images[path] = pool.submit(_look, self.root, path)
                waiting.append(batch)
                if len(waiting) > _AHEAD:
                    self._finish(waiting.popleft())
            while waiting:
                self._finish(waiting.popleft())
        opened = (self._verdict(path) for path in self._images)
        self.found.n_images = sum(verdict.fault is None for verdict in opened)
        return self.found

    def _batches(self, sources: Sequence[Source]) -> Iterator[list[_Entry]]:
        for source in sources:
            rows = enumerate(source.rows())
            while batch := [self._parse(source, *pair) for pair in islice(rows, _BATCH)]:
                self._judge(batch)
                yield batch

    def _parse(self, source: Source, index: int, row: Row) -> _Entry:
        entry = _Entry(source.name, index)
        try:
            entry.sample = parse_row(row, f"{source.stem}-{index}", self.keep)
            entry.has_id = row.get("id", row.get("sample_id")) not in (None, "")
        except RowFault as fault:
            entry.fault = fault
        return entry

    def _judge(self, batch: list[_Entry]) -> None:
        if self.judge is None:
            return
        self.judge.learn([entry.sample for entry in batch if entry.sample is not None])
        for entry in batch:
            if entry.sample is not None:
                try:
                    entry.notes += [(note, None) for note in self.judge(entry.sample)]
                except RowFault as fault:
                    entry.fault = fault

    def _finish(self, batch: list[_Entry]) -> None:
        for entry in batch:
            self.found.n_rows += 1
            fault = entry.fault or self._bad_image(entry) or self._duplicate(entry)
            if fault is not None:
                self.found.reasons[fault.reason] += 1
                self._write(entry, fault.reason, fault.image, kept=False)
                continue
            sample = entry.sample
            assert sample is not None
            self.found.n_clean += 1
            sample["sample_id"] = self._fresh_id(sample["sample_id"])
            self.samples(sample)
            for note, image in entry.notes:
                self.found.notes[note] += 1
                self._write(entry, note, image, kept=True)
        self.advance(len(batch))

    def _bad_image(self, entry: _Entry) -> RowFault | None:
        """The fault of the first image that does not open; notes of the others."""
        assert entry.sample is not None
        for path in entry.sample["images"]:
            verdict = self._verdict(path)
            if verdict.fault is not None:
                if f"image {verdict.fault}" == MISSING and len(self.found.missing) < 20:
                    self.found.missing.append(path)
                return RowFault(f"image {verdict.fault}", path)
            if verdict.note is not None:
                entry.notes.append((verdict.note, path))
        return None

    def _verdict(self, path: str) -> "_Verdict":
        verdict = self._images[path]
        if isinstance(verdict, Future):
            verdict = self._images[path] = verdict.result()
        return verdict

    def _duplicate(self, entry: _Entry) -> RowFault | None:
        sample = entry.sample
        assert sample is not None
        content = _digest([sample["images"], sample["conversations"]])
        same = _digest([sample["sample_id"] if entry.has_id else None, content.hex()])
        if same in self._rows_seen:
            what = "same id, same content" if entry.has_id else "same content"
            return RowFault(f"duplicate: {what}")
        self._rows_seen.add(same)
        if content in self._contents:
            entry.notes.append(("the content of an earlier row under another id", None))
        self._contents.add(content)
        return None

    def _fresh_id(self, name: str) -> str:
        fresh = name
        while fresh in self._ids:
            self._copies[name] += 1
            fresh = f"{name}#{self._copies[name] + 1}"
        self.found.renamed += fresh != name
        self._ids.add(fresh)
        return fresh

    def _write(self, entry: _Entry, reason: str, image: str | None, kept: bool) -> None:
        self.findings(
            {
                "source": entry.source,
                "row": entry.row,
                "sample_id": entry.sample["sample_id"] if entry.sample else None,
                "image": image,
                "reason": reason,
                "kept": kept,
            }
        )


def _paths(batch: list[_Entry]) -> list[str]:
    """The images of the rows that are good so far."""
    good = [entry.sample for entry in batch if entry.sample and not entry.fault]
    return [path for sample in good for path in sample["images"]]


@dataclass(frozen=True)
class _Verdict:
    """What came of opening an image: the reason why it did not open, or a note on it."""

    fault: str | None = None
    note: str | None = None


def _look(root: str | Path, path: str) -> _Verdict:
    try:
        return _Verdict(note=check_image(root, path))
    except ImageFault as error:
        return _Verdict(fault=error.reason)


def _digest(content: Any) -> bytes:
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
