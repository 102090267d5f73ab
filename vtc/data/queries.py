"""The question an image is compressed for: the user's own words, as tokens of a text by itself.

Which words is told by the roles of the turns, never by looking for marks in a rendered text: so no
template matters, and no answer can come in (where the code of QueCC cuts at the word ASSISTANT,
other templates let the answer through).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from vtc.data.conversations import IMAGE
from vtc.data.templates import Turn, adds_bos
from vtc.errors import InputError

QueryScope = Literal["latest", "first", "all"]
"""latest: the question that is being answered. first: that of the turn with the last image, for all
answers behind it (QueCC as released). all: every question so far, a line each."""

SCOPES: tuple[QueryScope, ...] = get_args(QueryScope)

NO_QUESTION = "image"
"""Stands for a question without words, as in QueCC's code."""


def question(turns: Sequence[Turn], scope: QueryScope = "latest") -> str:
    """What the images of a conversation are compressed for, when its last question is answered.

    Turns of others than the user, and `<image>` marks, are left out.
    """
    asked = [turn["text"] for turn in turns if turn["role"] == "user"]
    if scope == "first":
        seen = [number for number, text in enumerate(asked) if IMAGE in text]
        asked = asked[seen[-1] : seen[-1] + 1] if seen else asked[:1]
    elif scope == "latest":
        asked = asked[-1:]
    return "\n".join(filter(None, map(words, asked))) or NO_QUESTION


def words(text: str) -> str:
    """A user's turn without its `<image>` marks and the white space around them."""
    return " ".join(filter(None, (part.strip() for part in text.split(IMAGE))))


class QueryTokens:
    """Token ids (int64 [Q]) of questions, behind the begin token if the tokenizer has one.

    Each is a text by itself, as the LLM's vector of it does not depend on where it stands. Every
    distinct text is tokenised only once.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._start = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
        self._known: dict[str, np.ndarray] = {}

    def learn(self, texts: Iterable[str]) -> None:
        """Tokenise many texts at once. Raises InputError for one that has no tokens."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if not new:
            return
        found = self.tokenizer(new, add_special_tokens=False).input_ids
        for text, ids in zip(new, found, strict=True):
            if not ids:
                raise InputError(
                    f"question {text!r} has no tokens, and images are compressed for it"
                )
            self._known[text] = np.asarray([*self._start, *ids], dtype=np.int64)

    def ids(self, text: str) -> np.ndarray:
        """The ids of one text."""
        if text not in self._known:
            self.learn([text])
        return self._known[text]


def padded(
    rows: Sequence[Sequence[int] | np.ndarray], padding: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask (int64 [rows, longest] each) of rows of ids, padded on the right."""
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), padding, dtype=np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return ids, mask
