"""Checking samples before a training starts: every row parsed, every image opened."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtc.data.conversations import RowFault, parse_row
from vtc.data.images import ImageFault, open_image
from vtc.data.samples import read_conversations
from vtc.errors import InputError

Row = dict[str, Any]
MISSING = "image missing"


@dataclass
class Checked:
    """What a check found: clean samples, rejects with their reasons, and how many rows it read."""

    samples: list[Row] = field(default_factory=list)
    rejects: list[Row] = field(default_factory=list)
    n_rows: int = 0
    n_images: int = 0
    renamed: int = 0

    @property
    def share_bad(self) -> float:
        """Rejected rows as a share of all rows read."""
        return len(self.rejects) / self.n_rows if self.n_rows else 0.0

    def reject(self, source: str, row: int, sample: Row | None, fault: RowFault) -> None:
        """Set a row aside with its reason."""
        self.rejects.append(
            {
                "source": source,
                "row": row,
                "sample_id": sample["sample_id"] if sample else None,
                "image": fault.image,
                "reason": fault.reason,
            }
        )

    def summary(self) -> list[str]:
        """What was found, a line each: the totals, then the reasons, most frequent first."""
        lines = [
            f"{_rows(self.n_rows)}: {len(self.samples)} clean, {len(self.rejects)} rejected "
            f"({self.share_bad:.2%}); {self.n_images} images opened"
        ]
        if self.renamed:
            lines.append(
                f"{_rows(self.renamed)} with the id of an earlier one: renamed id#2, id#3, ..."
            )
        reasons = Counter(row["reason"] for row in self.rejects)
        lines += [f"  {count:6d}  {reason}" for reason, count in reasons.most_common(10)]
        if len(reasons) > 10:
            lines.append(f"  ... and {len(reasons) - 10} more reasons (see --rejects)")
        return lines


def image_root(source: str | Path, images: str | Path | None) -> Path:
    """`images`, else the root that a samples table names, else the folder of the file `source`.

    Raises InputError if it is no folder.
    """
    named = None
    if images is None and str(source).endswith(".parquet"):
        named = read_conversations(source).footer.get("settings", {}).get("image_root")
    root = Path(images if images is not None else named or Path(source).parent)
    if not root.is_dir():
        raise InputError(f"image root {root} is no folder; name it with --images")
    return root


def too_many_bad(checked: Checked, max_bad: float, root: Path, rejects: str | None) -> InputError:
    """The failure of a check that set too many rows aside, with the way out."""
    if not checked.n_rows:
        return InputError("the files hold no rows; no samples written")
    ways = f"see {rejects}" if rejects else "list them with --rejects FILE"
    if any(row["reason"] == MISSING for row in checked.rejects):
        ways += f"; images were sought in {root} (--images)"
    return InputError(
        f"{len(checked.rejects)} of {_rows(checked.n_rows)} are bad ({checked.share_bad:.2%}), "
        f"more than --max-bad {max_bad:.2%}; {ways}; no samples written"
    )


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def check_files(
    files: Sequence[str | Path],
    images: str | Path,
    *,
    judge: Callable[[Row], int] | None = None,
    workers: int = 4,
    advance: Callable[[int], object] = lambda n: None,
) -> Checked:
    """Read LLaVA JSON, JSON lines or samples tables and sort their rows into clean and rejected.

    Every distinct image is opened once, in `workers` threads, below the root `images`. `judge`
    counts a sample's text tokens and raises RowFault for one that trains nothing. A row equal to an
    earlier one is rejected; a row that only shares its id is renamed (LLaVA's mix holds many).

    Raises InputError for a file that is missing or whose JSON is broken, naming the row.
    """
    checked = Checked()
    places: list[tuple[str, int]] = []
    candidates: list[Row] = []
    for source in files:
        rows = read_conversations(source).rows
        checked.n_rows += len(rows)
        for index, row in enumerate(rows):
            sample = None
            try:
                sample = parse_row(row, f"{Path(source).stem}-{index}")
                if judge is not None:
                    sample["n_text_tokens"] = judge(sample)
            except RowFault as fault:
                checked.reject(str(source), index, sample, fault)
                continue
            candidates.append(sample)
            places.append((str(source), index))
    listed = (path for sample in candidates for path in sample["images"])
    faults = find_bad_images(listed, images, workers, advance)
    checked.n_images = len({path for s in candidates for path in s["images"]}) - len(faults)
    _sort_out(checked, candidates, places, faults)
    checked.rejects.sort(key=lambda reject: (reject["source"], reject["row"]))
    return checked


def find_bad_images(
    paths: Iterable[str],
    root: str | Path,
    workers: int = 4,
    advance: Callable[[int], object] = lambda n: None,
) -> dict[str, str]:
    """Open every distinct image below `root`; those that do not open, each with its reason.

    `advance(1)` is called after each image.
    """

    def fault(path: str) -> str | None:
        try:
            open_image(root, path)
        except ImageFault as error:
            return error.reason
        return None

    distinct = list(dict.fromkeys(paths))
    found: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for path, reason in zip(distinct, pool.map(fault, distinct), strict=True):
            if reason:
                found[path] = reason
            advance(1)
    return found


def _sort_out(
    checked: Checked, candidates: list[Row], places: list[tuple[str, int]], faults: dict[str, str]
) -> None:
    """Set aside rows with bad images and exact duplicates; give every id once."""
    contents: dict[str, set[str]] = {}
    used: set[str] = set()
    for sample, (source, row) in zip(candidates, places, strict=True):
        bad = next((path for path in sample["images"] if path in faults), None)
        if bad is not None:
            checked.reject(source, row, sample, RowFault(f"image {faults[bad]}", bad))
            continue
        content = json.dumps([sample["images"], sample["conversations"]], sort_keys=True)
        name = sample["sample_id"]
        if content in contents.setdefault(name, set()):
            checked.reject(source, row, sample, RowFault("duplicate: same id, same content"))
            continue
        contents[name].add(content)
        if name in used:
            sample["sample_id"] = _fresh_id(name, used)
            checked.renamed += 1
        used.add(sample["sample_id"])
        checked.samples.append(sample)


def _fresh_id(name: str, used: set[str]) -> str:
    number = 2
    while f"{name}#{number}" in used:
        number += 1
    return f"{name}#{number}"
