"""Token ids and label masks of a conversation: exactly the assistant's tokens are supervised."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vtc.data.conversations import IMAGE
from vtc.data.image_places import QueryPosition, place_images
from vtc.data.span_tokens import Piece, SpanTokens
from vtc.data.templates import ConversationTemplate, TemplateName, Turn, special_tokens
from vtc.errors import InputError

IGNORE = -100
"""Label of a position that is not learnt (torch's cross-entropy default)."""


class Encoded(NamedTuple):
    """One conversation as tokens, all int64 [T].

    `labels` is the token itself where supervised, else IGNORE. `turn_ids` numbers the blocks that
    do not see one another: 0 is shared by all, 1, 2, ... see themselves and 0. `position_ids` run
    on within each block.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    turn_ids: np.ndarray
    position_ids: np.ndarray


class TurnEncoder:
    """Tokenises conversations span by span; every distinct span only once."""

    def __init__(
        self,
        tokenizer: Any,
        template: TemplateName = "chat",
        query_position: QueryPosition = "after",
    ):
        self.tokenizer = tokenizer
        self.template = ConversationTemplate(tokenizer, template)
        self.query_position: QueryPosition = query_position
        self.image_token_id = image_token_id(tokenizer)
        self._pieces = SpanTokens(tokenizer)
        self._specials = tuple(sorted(special_tokens(tokenizer), key=len, reverse=True))

    def learn(self, conversations: Iterable[Sequence[Turn]]) -> None:
        """Tokenise the spans of many conversations at once (many times faster than one by one)."""
        self._pieces.learn(piece for turns in conversations for piece, _ in self._spans(turns))

    def forget(self) -> None:
        """Forget the spans tokenised so far: many samples' need much memory."""
        self._pieces.forget()

    def tokens(self, turns: Sequence[Turn]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and labels of a conversation, int64 [T] each; an image is still one token."""
        spans = [(self._pieces.ids(piece), learnt) for piece, learnt in self._spans(turns)]
        ids = np.concatenate([ids for ids, _ in spans])
        labels = [ids if learnt else np.full_like(ids, IGNORE) for ids, learnt in spans]
        return ids, np.concatenate(labels)

    def prompt(self, turns: Sequence[Turn]) -> np.ndarray:
        """Ids (int64 [T]) of what a model is given to answer the last turn, a user's.

        They are the ids that `tokens` puts before that answer, so that training and evaluation
        see the same prompt.
        """
        answered = [*turns, {"role": "assistant", "text": "?"}]
        pieces = [piece for piece, _ in self._spans(answered)[:-1]]
        return np.concatenate([self._pieces.ids(piece) for piece in pieces])

    def _spans(self, turns: Sequence[Turn]) -> list[tuple[Piece, bool]]:
        """The spans of a conversation in their places, and whether each is supervised."""
        found: list[tuple[Piece, bool]] = []
        behind = ""
        for span in self.template.spans(place_images(turns, self.query_position)):
            found.append((Piece(span.text, behind), span.supervised))
            if span.text.endswith(self._specials):
                behind = next(s for s in self._specials if span.text.endswith(s))
            elif span.text:
                behind = "text"
        return found


def encode_turns(
    turns: Sequence[Turn],
    tokenizer: Any,
    template: TemplateName = "chat",
    n_visual: int = 1,
    query_position: QueryPosition = "after",
) -> Encoded:
    """One conversation as tokens and labels; each `<image>` becomes `n_visual` image tokens.

    Raises InputError for a tokenizer without a chat template or without the token `<image>`.
    """
    encoder = TurnEncoder(tokenizer, template, query_position)
    return one_block(*encoder.tokens(turns), encoder.image_token_id, n_visual)


def expand_images(
    ids: np.ndarray, labels: np.ndarray, image_token: int, n_visual: int
) -> tuple[np.ndarray, np.ndarray]:
    """Repeat the one token of each image `n_visual` times; ids and labels int64 [T]."""
    repeats = np.where(ids == image_token, n_visual, 1)
    return np.repeat(ids, repeats), np.repeat(labels, repeats)


def one_block(ids: np.ndarray, labels: np.ndarray, image_token: int, n_visual: int) -> Encoded:
    """Ids and labels (int64 [T]) as a conversation in which every token sees all before it."""
    ids, labels = expand_images(ids, labels, image_token, n_visual)
    return Encoded(ids, labels, np.zeros_like(ids), np.arange(len(ids), dtype=np.int64))


def image_token_id(tokenizer: Any) -> int:
    """The id of `<image>`; raises InputError if the tokenizer does not have it as one token."""
    ids = tokenizer(IMAGE, add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise InputError(
            f"tokenizer {tokenizer.name_or_path} has no token {IMAGE}; add it as a special token"
        )
    return int(ids[0])
