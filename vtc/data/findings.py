"""What a check of samples found, and whether it is too much."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from vtc.errors import InputError

MISSING = "image missing"


@dataclass
class Summary:
    """What a check found, in numbers."""

    n_rows: int = 0
    n_clean: int = 0
    n_images: int = 0
    renamed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)

    @property
    def n_rejected(self) -> int:
        """Rows set aside."""
        return self.n_rows - self.n_clean

    @property
    def share_bad(self) -> float:
        """Rejected rows as a share of all rows read."""
        return self.n_rejected / self.n_rows if self.n_rows else 0.0

    def lines(self) -> list[str]:
        """What was found, a line each: the totals, then the reasons, most frequent first."""
        lines = [
            f"{_rows(self.n_rows)}: {self.n_clean} clean, {self.n_rejected} rejected "
            f"({self.share_bad:.2%}); {self.n_images} images opened"
        ]
        if self.renamed:
            lines.append(
                f"{_rows(self.renamed)} with the id of an earlier one: renamed id#2, id#3, ..."
            )
        lines += _counted(self.reasons)
        if self.notes:
            lines.append("kept, but note:")
            lines += _counted(self.notes)
        return lines


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def _counted(reasons: Counter[str]) -> list[str]:
    lines = [f"  {count:6d}  {reason}" for reason, count in reasons.most_common(10)]
    if len(reasons) > 10:
        lines.append(f"  ... and {len(reasons) - 10} more reasons (see --rejects)")
    return lines


def too_many_bad(
    found: Summary, max_bad: float, root: Path, rejects: str | None, sources: Sequence[str]
) -> InputError:
    """The failure of a check that set too many rows of `sources` aside: the commonest fault."""
    if not found.n_rows:
        holds = "holds" if len(sources) == 1 else "hold"
        named = " and ".join("stdin" if name == "-" else name for name in sources)
        return InputError(f"{named} {holds} no rows; no samples written")
    reason, count = found.reasons.most_common(1)[0]
    ways = f"see {rejects}" if rejects else "list them with --rejects FILE"
    if found.missing:
        ways += f"; images were sought in {root} (--images)"
        near = holding_folder(root, found.missing)
        if near is not None:
            ways += f", but stand in {near}"
    is_or_are = "is" if found.n_rejected == 1 else "are"
    return InputError(
        f"{found.n_rejected} of {_rows(found.n_rows)} {is_or_are} bad ({found.share_bad:.2%}), "
        f"more than --max-bad {max_bad:.2%}; the commonest fault: {reason} ({count}); {ways}; "
        "no samples written"
    )


def holding_folder(root: Path, missing: Sequence[str]) -> Path | None:
    """The folder near an image root in which some of the images that it lacks stand."""
    return next((p for p in (root.parent, *_folders(root)) if _holds(p, missing)), None)


def _folders(root: Path) -> list[Path]:
    return [path for path in islice(root.iterdir(), 100) if path.is_dir()]


def _holds(folder: Path, paths: Sequence[str]) -> bool:
    return any((folder / path).is_file() for path in paths)
