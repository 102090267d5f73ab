"""Token ids and label masks of a conversation: exactly the assistant's tokens are supervised."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vtc.data.conversations import IMAGE
from vtc.data.templates import ConversationTemplate, Span, TemplateName, Turn
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


@dataclass(frozen=True)
class Tokens:
    """A tokenised span: ids int64 [T], and whether they are supervised."""

    ids: np.ndarray
    supervised: bool


class TurnEncoder:
    """Tokenises conversations span by span; every distinct span only once."""

    def __init__(self, tokenizer: Any, template: TemplateName = "chat"):
        self.tokenizer = tokenizer
        self.template = ConversationTemplate(tokenizer, template)
        self.image_token_id = image_token_id(tokenizer)
        self._known: dict[str, np.ndarray] = {}

    def learn(self, conversations: Iterable[Sequence[Turn]]) -> None:
        """Tokenise the spans of many conversations at once (many times faster than one by one)."""
        texts = {span.text for turns in conversations for span in self.template.spans(turns)}
        new = [text for text in texts if text not in self._known]
        if not new:
            return
        for text, ids in zip(
            new, self.tokenizer(new, add_special_tokens=False).input_ids, strict=True
        ):
            self._known[text] = np.asarray(ids, dtype=np.int64)

    def tokens(self, turns: Sequence[Turn]) -> list[Tokens]:
        """The conversation's spans as tokens; an image is still one token."""
        return [self._tokens(span) for span in self.template.spans(turns)]

    def encode(self, turns: Sequence[Turn], n_visual: int) -> Encoded:
        """The whole conversation as one block, each image as `n_visual` tokens."""
        tokens = self.tokens(turns)
        ids = np.concatenate([piece.ids for piece in tokens])
        labels = np.concatenate([labels_of(piece) for piece in tokens])
        ids, labels = expand_images(ids, labels, self.image_token_id, n_visual)
        zeros = np.zeros(len(ids), dtype=np.int64)
        return Encoded(ids, labels, zeros, np.arange(len(ids), dtype=np.int64))

    def _tokens(self, span: Span) -> Tokens:
        ids = self._known.get(span.text)
        if ids is None:
            ids = np.asarray(
                self.tokenizer(span.text, add_special_tokens=False).input_ids, dtype=np.int64
            )
            self._known[span.text] = ids
        return Tokens(ids, span.supervised)


def encode_turns(
    turns: Sequence[Turn], tokenizer: Any, template: TemplateName = "chat", n_visual: int = 1
) -> Encoded:
    """One conversation as tokens and labels; each `<image>` becomes `n_visual` image tokens.

    Raises InputError for a tokenizer without a chat template or without the token `<image>`.
    """
    return TurnEncoder(tokenizer, template).encode(turns, n_visual)


def encode_prompt(turns: Sequence[Turn], tokenizer: Any, n_visual: int) -> list[int]:
    """Token ids a model is given to answer the last user's turn: the very start of training's."""
    text = ConversationTemplate(tokenizer, "chat").prompt(turns)
    ids = np.asarray(tokenizer(text, add_special_tokens=False).input_ids, dtype=np.int64)
    expanded, _ = expand_images(ids, ids, image_token_id(tokenizer), n_visual)
    return expanded.tolist()


def labels_of(tokens: Tokens) -> np.ndarray:
    """Labels of a span: its ids where supervised, IGNORE everywhere else."""
    return tokens.ids if tokens.supervised else np.full_like(tokens.ids, IGNORE)


def expand_images(
    ids: np.ndarray, labels: np.ndarray, image_token: int, n_visual: int
) -> tuple[np.ndarray, np.ndarray]:
    """Repeat the one token of each image `n_visual` times; ids and labels int64 [T]."""
    repeats = np.where(ids == image_token, n_visual, 1)
    return np.repeat(ids, repeats), np.repeat(labels, repeats)


def image_token_id(tokenizer: Any) -> int:
    """The id of `<image>`; raises InputError if the tokenizer does not have it as one token."""
    ids = tokenizer(IMAGE, add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise InputError(
            f"tokenizer {tokenizer.name_or_path} has no token {IMAGE}; add it as a special token"
        )
    return int(ids[0])
