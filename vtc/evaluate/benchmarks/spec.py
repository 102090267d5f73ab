"""What a benchmark of the field is: its data, its prompt, and the metric that scores it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.item import Item

SHORT = "\nAnswer the question using a single word or phrase."
"""What lmms-eval appends to questions with short answers."""
LETTER = "\nAnswer with the option's letter from the given choices directly."
"""What lmms-eval appends to multiple-choice questions."""


@dataclass(frozen=True)
class HubData:
    """Where rows are on the Hugging Face hub: the first id that is there, its config and split."""

    ids: tuple[str, ...]
    split: str
    config: str | None = None

    @classmethod
    def of(cls, name: str, split: str, config: str | None = None) -> "HubData":
        """A data set of lmms-eval: under its organisation's name of today, and the former one."""
        return cls((f"lmms-lab-encoder/{name}", f"lmms-lab/{name}"), split, config)


@dataclass(frozen=True)
class Joined:
    """A second table that holds the images: `key` in it equals `column` in the rows."""

    data: HubData
    key: str
    column: str


@dataclass(frozen=True)
class Spec:
    """A benchmark of the field. `item` makes an item of a row; `n_rows` are those of its split.

    `prompt` says in words what `item` asks, and gives the prompt its hash. `group` names the group
    of a row, where items are right or wrong together and taken whole. `numbered`: ids repeat
    within a group by design, and are told apart by "/1", "/2". `image_columns` are those that hold
    the pictures.
    """

    name: str
    title: str
    task: str
    metric: str
    data: HubData
    n_rows: int
    item: Callable[[DataRow], Item]
    prompt: str
    paper: str
    max_new_tokens: int = 16
    group: Callable[[DataRow], str] | None = None
    numbered: bool = False
    joined: Joined | None = None
    image_columns: Sequence[str] = field(default=("image",))


def lettered(choices: Sequence[str]) -> str:
    """Choices a line each, "A. ..." from A."""
    return "\n".join(f"{letter(number)}. {choice}" for number, choice in enumerate(choices))


def letter(number: int) -> str:
    """The letter of a choice: A of 0, B of 1, ..."""
    return chr(ord("A") + number)
