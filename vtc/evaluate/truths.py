"""What predictions made elsewhere are held against: a benchmark's own rows, without pictures."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vtc.errors import InputError
from vtc.evaluate.benchmarks import loading
from vtc.evaluate.benchmarks.local import Numbered
from vtc.evaluate.benchmarks.spec import Spec
from vtc.evaluate.chance import chance
from vtc.evaluate.item import Item

MISSING = "no prediction"
"""The `fault` of an item that the predictions leave out: it counts as wrong."""

_NAMED = 3  # Ids that a message names.
_COMPARED = 40  # Characters of a question held against a prompt.
_SHOWN = 60


class Truths(NamedTuple):
    """The items of a benchmark in the order of its rows, and the blind baseline's score."""

    spec: Spec
    items: list[Item]
    chance: float


def read_truths(spec: Spec, data_dir: str | Path) -> Truths:
    """The items of a benchmark from its rows in `data_dir`; pictures are only told apart.

    Raises InputError as an evaluation on them would.
    """
    where = loading.Where(pictures=Path(), data_dir=Path(data_dir), incomplete=True)
    rows = loading.rows_of(spec, where)
    items = list(loading.items_of(spec, _without_join(spec, rows), _hash))
    if not items:
        raise InputError(f"--data-dir {data_dir}: no rows of {spec.name}")
    return Truths(spec, items, chance(items, spec.metric))


def as_cells(item: Item, spec: Spec) -> dict[str, Any]:
    """An item as the cells of a predictions row that scoring reads."""
    return {
        "benchmark": spec.name,
        "task": spec.task,
        "metric": spec.metric,
        "item_id": item.item_id,
        "image_id": item.image_id,
        "references": item.references,
        "choices": list(item.choices) or None,
        "category": item.category,
        "group": item.group,
        "about": json.dumps(item.about) if item.about else None,
    }


class Held:
    """Keeps count of which items of a benchmark each run answered, and of ids that it has not."""

    def __init__(self, own: Truths, name: str):
        self.own = own
        self.name = name
        self._by_id = {item.item_id: item for item in own.items}
        self._answered: dict[tuple, set[str]] = {}
        self._example: dict[tuple, Mapping[str, Any]] = {}
        self._unknown: list[str] = []

    def cells(self, item_id: str) -> dict[str, Any] | None:
        """What the benchmark knows of an item; None, and noted, if it has no such item."""
        item = self._by_id.get(item_id)
        if item is None:
            self._unknown.append(item_id)
            return None
        return self._cells(item)

    def at(self, position: str, prompt: str, where: str) -> dict[str, Any]:
        """The same of the item of a row's position, which the prompt must ask for.

        Raises InputError if there is no such row, or it asks something else.
        """
        spec, items = self.own.spec, self.own.items
        if not position.isdigit() or int(position) >= len(items):
            raise InputError(
                f"{where}: doc_id {position}, but --data-dir has {len(items)} rows of {spec.name}; "
                "are they of another split?"
            )
        item = items[int(position)]
        if prompt and _start(item.question) not in _plain(prompt):
            raise InputError(
                f"{where}: it asks '{_plain(prompt)[:_SHOWN]}', but row {position} of {spec.name} "
                f"in --data-dir asks '{_plain(item.question)[:_SHOWN]}'; are they of another "
                "split, or in another order?"
            )
        return self._cells(item)

    def _cells(self, item: Item) -> dict[str, Any]:
        return {**as_cells(item, self.own.spec), "chance": self.own.chance}

    def note(self, row: Mapping[str, Any]) -> None:
        """Note that a run answered an item."""
        key = (row["run_id"], row["visual_tokens"], row.get("visual_tokens_repeated"))
        self._answered.setdefault(key, set()).add(row["item_id"])
        self._example.setdefault(key, row)

    def rest(self, incomplete: bool, say: Callable[[str], object]) -> Iterator[dict[str, Any]]:
        """A row for each item that a run left out, with a fault; none if `incomplete`.

        `say` is told how many they are. Raises InputError for predictions of unknown items.
        """
        spec = self.own.spec
        if self._unknown:
            own = ", ".join(item.item_id for item in self.own.items[:_NAMED])
            few = ", ".join(self._unknown[:_NAMED])
            n = len(self._unknown)
            what = "1 prediction is for an item" if n == 1 else f"{n} predictions are for items"
            raise InputError(
                f"{self.name}: {what} that {spec.name} "
                f"does not have ({few}); its ids are {own}, ..."
            )
        for key, answered in self._answered.items():
            left = [item for item in self.own.items if item.item_id not in answered]
            if not left:
                continue
            what = "left out" if incomplete else "scored wrong; --incomplete leaves them out"
            say(
                f"{self.name}: {len(left)} of {len(self.own.items)} items of {spec.name} have no "
                f"prediction of run {key[0]}: {what}"
            )
            for item in [] if incomplete else left:
                fault = {"prediction": "", "fault": MISSING}
                yield {**self._example[key], **as_cells(item, spec), **fault}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _start(question: str) -> str:
    """A question up to its first mark: tasks leave out or add words behind it."""
    return _plain(question).split("?")[0][:_COMPARED]


def _without_join(spec: Spec, rows: Iterator[Numbered]) -> Iterator[Numbered]:
    """Rows whose pictures stand in a second table: its key stands for the picture."""
    column = spec.image_columns[0]
    for at, cells in rows:
        if spec.joined is not None and cells.get(column) is None:
            cells = {**cells, column: str(cells.get(spec.joined.column))}
        yield at, cells


def _hash(picture: bytes) -> str:
    return hashlib.sha256(picture).hexdigest()[:16]
