"""Token ids and label masks of a conversation: exactly the assistant's tokens are supervised."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vtc.data.conversations import IMAGE
from vtc.data.templates import ConversationTemplate, TemplateName, Turn
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

    def __init__(self, tokenizer: Any, template: TemplateName = "chat"):
        self.tokenizer = tokenizer
        self.template = ConversationTemplate(tokenizer, template)
        self.image_token_id = image_token_id(tokenizer)
        self._known: dict[str, np.ndarray] = {}

    def learn(self, conversations: Iterable[Sequence[Turn]]) -> None:
        """Tokenise the spans of many conversations at once (many times faster than one by one)."""
        texts = {span.text for turns in conversations for span in self.template.spans(turns)}
        new = [text for text in texts if text not in self._known]
        for text, ids in zip(new, _tokenise_all(self.tokenizer, new), strict=True):
            self._known[text] = np.asarray(ids, dtype=np.int64)

    def tokens(self, turns: Sequence[Turn]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and labels of a conversation, int64 [T] each; an image is still one token."""
        spans = [(self._ids(span.text), span.supervised) for span in self.template.spans(turns)]
        ids = np.concatenate([ids for ids, _ in spans])
        labels = [ids if learnt else np.full_like(ids, IGNORE) for ids, learnt in spans]
        return ids, np.concatenate(labels)

    def _ids(self, text: str) -> np.ndarray:
        ids = self._known.get(text)
        if ids is None:
            found = self.tokenizer(text, add_special_tokens=False).input_ids
            ids = self._known[text] = np.asarray(found, dtype=np.int64)
        return ids


def encode_turns(
    turns: Sequence[Turn], tokenizer: Any, template: TemplateName = "chat", n_visual: int = 1
) -> Encoded:
    """One conversation as tokens and labels; each `<image>` becomes `n_visual` image tokens.

    Raises InputError for a tokenizer without a chat template or without the token `<image>`.
    """
    encoder = TurnEncoder(tokenizer, template)
    return one_block(*encoder.tokens(turns), encoder.image_token_id, n_visual)


def expand_images(
    ids: np.ndarray, labels: np.ndarray, image_token: int, n_visual: int
) -> tuple[np.ndarray, np.ndarray]:
    """Repeat the one token of each image `n_visual` times; ids and labels int64 [T]."""
    repeats = np.where(ids == image_token, n_visual, 1)
    return np.repeat(ids, repeats), np.repeat(labels, repeats)


def _tokenise_all(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of many texts; of a fast tokenizer without the detour over offsets and masks."""
    if not texts:
        return []
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        return tokenizer(texts, add_special_tokens=False).input_ids
    # An earlier call may have left its padding and truncation behind; each call sets them anew.
    core.no_padding()
    core.no_truncation()
    return [found.ids for found in core.encode_batch_fast(texts, add_special_tokens=False)]


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
