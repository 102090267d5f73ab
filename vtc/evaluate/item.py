"""One item of a benchmark: what is asked, shown and accepted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vtc.evaluate.metric import Truth


@dataclass(frozen=True)
class Item:
    """One question: its prompt, its images (none for text alone), and what scoring it takes.

    `images` are paths relative to the benchmark's image root, in the order of the prompt. `choices`
    are the texts of the options A, B, ...; `category` and `group` are what a benchmark's score is
    made by (MME's pairs, MMBench's circles); `about` holds what else a metric reads (JSON values).
    `cluster` names the image for standard errors, where the paths do not tell equal images.
    """

    item_id: str
    images: tuple[str, ...]
    question: str
    prompt: str
    references: list[str]
    choices: tuple[str, ...] = ()
    category: str | None = None
    group: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    cluster: str | None = None

    @property
    def truth(self) -> Truth:
        """What a prediction is scored against."""
        return Truth(self.references, self.choices, self.category, self.about)

    @property
    def image_id(self) -> str:
        """What items of the same images share; the item itself, without an image."""
        return self.cluster or " ".join(self.images) or self.item_id
