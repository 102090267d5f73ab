"""What a training's cost depends on of its data: how many rows and images, how long."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtc.errors import InputError

# Characters a token, where nobody has counted: English under a vocabulary of 100k or so.
_CHARACTERS = 4


@dataclass(frozen=True)
class DataFacts:
    """Statistics of a data set. Text tokens exclude the visual ones; means are over all rows.

    `images` are the distinct ones, `images_per_row` those of a row that has any. For compressors
    that read the question: `questions` a row with images, `query_tokens` of each (0: what of the
    text is not supervised), and how many of all are distinct (0: all).
    """

    rows: int
    text_tokens: float
    supervised_tokens: float
    longest_text_tokens: int
    text_only_rows: int = 0
    images: int = 0
    images_per_row: float = 1.0
    questions: float = 1.0
    query_tokens: float = 0.0
    distinct_questions: int = 0

    @property
    def image_share(self) -> float:
        """Rows with an image, of all."""
        return 1 - self.text_only_rows / self.rows


_KEYS = {name.replace("_", "-"): name for name in DataFacts.__dataclass_fields__}
_NEEDED = ("rows", "text-tokens", "supervised-tokens", "longest-text-tokens")


def stated(table: Mapping[str, Any], where: str) -> DataFacts:
    """The statistics that a recipe states; one image a row with images, unless it says otherwise.

    Raises InputError naming `where` for a statistic that is missing, unknown or no number.
    """
    for key, value in table.items():
        if key not in _KEYS:
            raise InputError(f"{where}: '{key}' is no statistic; choose from {', '.join(_KEYS)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise InputError(f"{where}: {key} is {value!r}, not a number of at least 0")
    lacking = [key for key in _NEEDED if not table.get(key)]
    if lacking:
        raise InputError(f"{where}: state {', '.join(lacking)}, or samples = FILE to count them")
    facts = DataFacts(**{_KEYS[key]: value for key, value in table.items()})
    if facts.text_only_rows > facts.rows or facts.supervised_tokens > facts.text_tokens:
        raise InputError(
            f"{where}: text-only-rows or supervised-tokens exceed what they are part of"
        )
    with_images = facts.rows - facts.text_only_rows
    return DataFacts(**{**vars(facts), "images": facts.images or with_images})


def counted(samples: Sequence[Mapping[str, Any]], template: str) -> DataFacts:
    """The statistics of rows of the samples table.

    Tokens are those that `check-data --llm` counted, else characters over four; the supervised ones
    the assistant's share of the characters, and all there are under the template plain.
    """
    lengths, supervised, images, with_images, placed = [], 0.0, set(), 0, 0
    asked: list[str] = []
    for row in samples:
        answers = sum(len(t["text"]) for t in row["conversations"] if t["role"] == "assistant")
        text = answers if template == "plain" else sum(len(t["text"]) for t in row["conversations"])
        tokens = max(1.0, text / _CHARACTERS)
        if row.get("n_text_tokens") and template != "plain":
            tokens = float(row["n_text_tokens"])
        lengths.append(tokens)
        supervised += tokens * answers / max(text, 1)
        images.update(row["images"])
        with_images += bool(row["images"])
        placed += len(row["images"])
        if row["images"]:
            asked += [t["text"] for t in row["conversations"] if t["role"] == "user"]
    return DataFacts(
        rows=len(lengths),
        text_tokens=sum(lengths) / len(lengths),
        supervised_tokens=supervised / len(lengths),
        longest_text_tokens=round(max(lengths)),
        text_only_rows=len(lengths) - with_images,
        images=len(images),
        images_per_row=placed / max(with_images, 1),
        questions=len(asked) / max(with_images, 1) or 1.0,
        query_tokens=sum(map(len, asked)) / max(len(asked), 1) / _CHARACTERS,
        distinct_questions=len(set(asked)),
    )
