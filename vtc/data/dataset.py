"""Samples tokenised once for a whole training, whatever the batches and whatever V."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from torch.utils.data import Dataset

from vtc.data.labels import IGNORE, Encoded, TurnEncoder, one_block
from vtc.data.packing import Questions, Turns, pack_questions, question_pairs
from vtc.errors import InputError


@dataclass(frozen=True)
class Dialogue:
    """A conversation of turns that see all before them: ids and labels int64 [T]."""

    ids: np.ndarray
    labels: np.ndarray
    image_token_id: int

    @property
    def n_text(self) -> int:
        """Tokens other than images."""
        return int((self.ids != self.image_token_id).sum())

    def encode(self, n_visual: int, chosen: Sequence[int] | None = None) -> Encoded:
        """The whole conversation; it has nothing to choose from."""
        return one_block(self.ids, self.labels, self.image_token_id, n_visual)


@dataclass(frozen=True)
class TokenisedRow:
    """One sample ready to collate: its tokens, and the paths of its images."""

    sample_id: str
    tokens: Dialogue | Questions
    images: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """How many images and how many text tokens it has."""
        return len(self.images), self.tokens.n_text


Row = TypeVar("Row")


class InMemory(Dataset, Generic[Row]):
    """The rows of a training in memory. An item is its own index: the collator looks it up."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> int:
        return index


def tokenise(
    samples: Sequence[dict[str, Any]], encoder: TurnEncoder, turns: Turns = "dialogue"
) -> InMemory[TokenisedRow]:
    """Tokenise samples, each image as one token until it is collated.

    `turns` = "independent" makes a branch of every question; "dialogue" keeps the conversation.
    Raises InputError naming a sample without a supervised token.
    """
    if turns == "independent":
        pairs = [question_pairs(sample["conversations"]) for sample in samples]
        encoder.learn(pair for row in pairs for pair in row)
        tokens = [pack_questions(encoder, row) for row in pairs]
    else:
        encoder.learn(sample["conversations"] for sample in samples)
        tokens = [
            Dialogue(*encoder.tokens(sample["conversations"]), encoder.image_token_id)
            for sample in samples
        ]
    for sample, row in zip(samples, tokens, strict=True):
        _check_supervised(sample["sample_id"], row)
    return InMemory(
        [
            TokenisedRow(sample["sample_id"], row, tuple(sample["images"]))
            for sample, row in zip(samples, tokens, strict=True)
        ]
    )


def _check_supervised(sample_id: str, tokens: Dialogue | Questions) -> None:
    parts = [tokens.labels] if isinstance(tokens, Dialogue) else [b for _, b in tokens.branches]
    if not all((labels != IGNORE).any() for labels in parts):
        raise InputError(
            f"sample {sample_id} has no supervised token; 'vtc check-data --llm DIR' sets such "
            "rows aside"
        )
