"""A sample whose images are compressed for each of its questions: a row of tokens an answer.

What a model sees of an image then depends on the question that it answers, so that two answers of a
dialogue cannot share the image's tokens. Each answer is learnt behind the very prompt that it gets
when the model is used: the turns before it, and the images compressed for its own question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vtc.data.labels import IGNORE, Encoded, TurnEncoder, one_block
from vtc.data.packing import question_pairs
from vtc.data.queries import QueryScope, QueryTokens, question
from vtc.data.templates import Turn


class Exchange(NamedTuple):
    """Ids and labels (int64 [T]) of turns, of which those from `learnt_from` on are learnt here.

    `query` are the ids [Q] of what the images are compressed for.
    """

    ids: np.ndarray
    labels: np.ndarray
    learnt_from: int
    query: np.ndarray


class Asked(NamedTuple):
    """A row ready to collate: its tokens, the images that it shows, and what they are asked."""

    encoded: Encoded
    n_images: int
    query: np.ndarray


@dataclass(frozen=True)
class Exchanges:
    """The exchanges of one sample with images; `independent` if none stands behind another."""

    parts: tuple[Exchange, ...]
    image_token_id: int
    independent: bool

    @property
    def n_text(self) -> int:
        """Tokens other than images, of all rows together."""
        return sum(int((part.ids != self.image_token_id).sum()) for part in self.parts)

    @property
    def n_rows(self) -> int:
        """Rows that the sample becomes."""
        return len(self.parts)

    @property
    def branches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids and labels of each exchange, what others learn of it left out."""
        return [(part.ids, _learnt(part)) for part in self.parts]

    def rows(self, n_visual: int, chosen: Sequence[int] | None = None) -> list[Asked]:
        """The chosen exchanges (default: all), each as a row of its own."""
        parts = self.parts if chosen is None else [self.parts[number] for number in chosen]
        return [
            Asked(
                one_block(part.ids, _learnt(part), self.image_token_id, n_visual),
                int((part.ids == self.image_token_id).sum()),
                part.query,
            )
            for part in parts
        ]


def exchanges(
    encoder: TurnEncoder,
    queries: QueryTokens,
    turns: Sequence[Turn],
    scope: QueryScope,
    *,
    independent: bool = False,
) -> Exchanges:
    """The exchanges of a conversation with images.

    With `independent` questions, one a question that sees no other. Else, as the query is the
    same for all answers (scope first), all of them in one; or one an answer.
    """
    if independent:
        pairs = question_pairs(turns)
        made = [Exchange(*encoder.tokens(p), 0, queries.ids(question(p, scope))) for p in pairs]
        return Exchanges(tuple(made), encoder.image_token_id, True)
    whole = encoder.tokens(turns)
    if scope == "first":
        made = [Exchange(*whole, 0, queries.ids(question(turns, scope)))]
        return Exchanges(tuple(made), encoder.image_token_id, False)
    made = []
    for end, turn in enumerate(turns):
        if turn["role"] == "assistant":
            ids, labels = encoder.tokens(turns[: end + 1])
            # Templates may write earlier answers otherwise than the last; most do not, and then
            # the long rows of a dialogue are views of one.
            if np.array_equal(whole[0][: len(ids)], ids):
                ids, labels = whole[0][: len(ids)], whole[1][: len(ids)]
            query = queries.ids(question(turns[:end], scope))
            made.append(Exchange(ids, labels, len(encoder.prompt(turns[:end])), query))
    return Exchanges(tuple(made), encoder.image_token_id, False)


def queries_of(turns: Sequence[Turn], scope: QueryScope) -> list[str]:
    """All texts that the images of a conversation may be compressed for."""
    ends = [number for number, turn in enumerate(turns) if turn["role"] == "user"]
    return [question(turns[: end + 1], scope) for end in ends]


def _learnt(part: Exchange) -> np.ndarray:
    if not part.learnt_from:
        return part.labels
    labels: Any = part.labels.copy()
    labels[: part.learnt_from] = IGNORE
    return labels
