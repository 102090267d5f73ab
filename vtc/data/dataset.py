"""Samples tokenised once for a whole training, whatever the batches and whatever V."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from torch.utils.data import Dataset

from vtc.data.exchanges import Exchanges, exchanges, queries_of
from vtc.data.labels import IGNORE, Encoded, TurnEncoder, one_block
from vtc.data.packing import Questions, Turns, pack_questions, question_pairs
from vtc.data.queries import QueryScope, QueryTokens
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
    tokens: Dialogue | Questions | Exchanges
    images: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """How many images and how many text tokens it has, in all of its rows."""
        n_rows = self.tokens.n_rows if isinstance(self.tokens, Exchanges) else 1
        return len(self.images) * n_rows, self.tokens.n_text


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
    samples: Sequence[dict[str, Any]],
    encoder: TurnEncoder,
    turns: Turns = "dialogue",
    scope: QueryScope | None = None,
) -> InMemory[TokenisedRow]:
    """Tokenise samples, each image as one token until it is collated.

    `turns` = "independent" makes a branch of every question; "dialogue" keeps the conversation.
    For a compressor that reads the question, `scope` says which; samples with images then become
    exchanges. Raises InputError naming a sample without a supervised token.
    """
    tokens: Sequence[Dialogue | Questions | Exchanges]
    if scope is not None:
        tokens = _asking(samples, encoder, turns, scope)
    elif turns == "independent":
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


def _asking(
    samples: Sequence[dict[str, Any]], encoder: TurnEncoder, turns: Turns, scope: QueryScope
) -> list[Dialogue | Questions | Exchanges]:
    """The rows of a compressor that reads the question: exchanges where there is an image."""
    plain = [sample for sample in samples if not sample["images"]]
    plainly = iter(tokenise(plain, encoder, turns).rows)
    queries = QueryTokens(encoder.tokenizer)
    spoken = [sample["conversations"] for sample in samples if sample["images"]]
    independent = turns == "independent"
    encoder.learn(
        pair for talk in spoken for pair in (question_pairs(talk) if independent else [talk])
    )
    queries.learn(text for talk in spoken for text in queries_of(talk, scope))
    return [
        exchanges(encoder, queries, sample["conversations"], scope, independent=independent)
        if sample["images"]
        else next(plainly).tokens
        for sample in samples
    ]


def _check_supervised(sample_id: str, tokens: Dialogue | Questions | Exchanges) -> None:
    parts = [tokens.labels] if isinstance(tokens, Dialogue) else [b for _, b in tokens.branches]
    if not all((labels != IGNORE).any() for labels in parts):
        raise InputError(
            f"sample {sample_id} has no supervised token; 'vtc check-data --llm DIR' sets such "
            "rows aside"
        )
