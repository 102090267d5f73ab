"""A benchmark as runs sit it: its items, and what of them says whether two exams are the same."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from vtc.data.image_files import content_hash
from vtc.evaluate.benchmark import Benchmark
from vtc.evaluate.chance import chance
from vtc.evaluate.items import Item


@dataclass(frozen=True)
class Exam:
    """A benchmark, its items, and its chance level in [0, 1]."""

    benchmark: Benchmark
    items: list[Item]
    chance: float

    @classmethod
    def of(cls, benchmark: Benchmark, items: list[Item]) -> "Exam":
        """The exam of a benchmark; its chance is what its file says, else the blind baseline."""
        level = benchmark.chance
        return cls(benchmark, items, chance(items, benchmark.metric) if level is None else level)

    def images(self) -> list[tuple[tuple[Path, str], ...]]:
        """The images (root, path) of each item, none for text alone."""
        root = self.benchmark.images
        return [tuple((root, image) for image in item.images) for item in self.items]

    def fingerprint(self) -> str:
        """A hash of what is asked, of the images' names, and of the longest length of an answer.

        The images' root is no part of it: pictures of named benchmarks may lie elsewhere each time.
        """
        asked = [[i.item_id, i.prompt, i.images, i.choices, i.references] for i in self.items]
        text = json.dumps([self.benchmark.max_new_tokens, asked])
        return hashlib.sha256(text.encode()).hexdigest()

    def shown(self) -> str:
        """A hash of what the images hold."""
        return content_hash(image for own in self.images() for image in own)
