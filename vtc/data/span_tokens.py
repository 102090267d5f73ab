"""Tokenising a piece of a text as it would be tokenised in its place.

Sentencepiece-like tokenizers put a space before whatever they are given, and some special tokens
swallow the space behind them. So a piece that does not start its text is tokenised behind an
anchor, whose tokens are then dropped.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

TEXT_ANCHORS = ("\n", ":", "]")
"""What may stand for the ordinary text before a piece; the first that does not merge serves."""


class Piece(NamedTuple):
    """A text and what stands before it: "" nothing, "text" ordinary text, or a special token."""

    text: str
    behind: str = ""


class SpanTokens:
    """Token ids (int64 [T]) of pieces of text; every distinct piece is tokenised only once."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._known: dict[Piece, np.ndarray] = {}
        self._minds: dict[str, bool] = {}

    def learn(self, pieces: Iterable[Piece]) -> None:
        """Tokenise many pieces at once (many times faster than one by one)."""
        new = list(dict.fromkeys(piece for piece in pieces if piece not in self._known))
        plain = [piece for piece in new if not self._needs_anchor(piece)]
        for piece, ids in zip(plain, self._tokenise([p.text for p in plain]), strict=True):
            self._known[piece] = np.asarray(ids, dtype=np.int64)
        self._learn_anchored([piece for piece in new if self._needs_anchor(piece)])

    def forget(self) -> None:
        """Forget all pieces tokenised so far."""
        self._known.clear()

    def ids(self, piece: Piece) -> np.ndarray:
        """The ids of one piece."""
        if piece not in self._known:
            self.learn([piece])
        return self._known[piece]

    def _needs_anchor(self, piece: Piece) -> bool:
        """Whether this tokenizer reads a text otherwise when something stands before it."""
        if not piece.behind:
            return False
        minds = self._minds.get(piece.behind)
        if minds is None:
            anchor = TEXT_ANCHORS[0] if piece.behind == "text" else piece.behind
            tried = ("a", " a", "\na")
            texts = [anchor, *tried, *(anchor + text for text in tried)]
            start, *found = self._tokenise(texts)
            alone, together = found[: len(tried)], found[len(tried) :]
            minds = any(start + one != both for one, both in zip(alone, together, strict=True))
            self._minds[piece.behind] = minds
        return minds

    def _learn_anchored(self, pieces: Sequence[Piece]) -> None:
        left = list(pieces)
        for anchor in TEXT_ANCHORS:
            left = self._learn_behind(left, anchor)
        for piece, ids in zip(left, self._tokenise([p.text for p in left]), strict=True):
            self._known[piece] = np.asarray(ids, dtype=np.int64)

    def _learn_behind(self, pieces: Sequence[Piece], text_anchor: str) -> list[Piece]:
        """Tokenise pieces behind their anchors; those that share a token with theirs are left."""
        anchors = [text_anchor if p.behind == "text" else p.behind for p in pieces]
        distinct = list(dict.fromkeys(anchors))
        starts = dict(zip(distinct, self._tokenise(distinct), strict=True))
        both = self._tokenise([a + p.text for a, p in zip(anchors, pieces, strict=True)])
        left = []
        for piece, anchor, ids in zip(pieces, anchors, both, strict=True):
            start = starts[anchor]
            if ids[: len(start)] == start:
                self._known[piece] = np.asarray(ids[len(start) :], dtype=np.int64)
            else:
                left.append(piece)
        return left

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        """Ids of texts; of a fast tokenizer without the detour over offsets and masks."""
        if not texts:
            return []
        core = getattr(self.tokenizer, "backend_tokenizer", None)
        if core is None:
            return self.tokenizer(texts, add_special_tokens=False).input_ids
        # An earlier call may have left its padding and truncation behind; each call sets them anew.
        core.no_padding()
        core.no_truncation()
        return [found.ids for found in core.encode_batch_fast(texts, add_special_tokens=False)]
