"""Scored rows in as little memory as adding them up needs: a million of them in some 300 MB."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vtc.evaluate import metrics
from vtc.evaluate.aggregate import SHARED
from vtc.evaluate.metric import mean

_SHARED = (*SHARED, "parser")
_OWN = ("item_id", "image_id", "score")


def lean(rows: Iterable[Mapping[str, Any]], compat: bool) -> Iterator[Mapping[str, Any]]:
    """The scored rows, without texts where the score is a mean; other metrics read more of them.

    What the rows of a run share is held once.
    """
    shared: dict[tuple, dict[str, Any]] = {}
    images: dict[str, str] = {}
    for row in rows:
        if metrics.METRICS[row["metric"]].summer(compat) is not mean:
            yield row
            continue
        cells = tuple(map(row.get, _SHARED))
        common = shared.get(cells)
        if common is None:
            common = shared[cells] = dict(zip(_SHARED, cells, strict=True))
        image = images.setdefault(row["image_id"], row["image_id"])
        yield _Lean(common, row["item_id"], image, row["score"])


class _Lean(Mapping):
    """A row as a mapping: three cells of its own, the others its run's."""

    __slots__ = ("common", "image_id", "item_id", "score")

    def __init__(self, common: dict[str, Any], item_id: str, image_id: str, score: float):
        self.common = common  # One object for all rows of a run and benchmark.
        self.item_id = item_id
        self.image_id = image_id
        self.score = score

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name) if name in _OWN else self.common[name]

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name) if name in _OWN else self.common.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter((*self.common, *_OWN))

    def __len__(self) -> int:
        return len(self.common) + len(_OWN)
