"""What a tokenizer has to say about a sample: its length, and whether anything of it is learnt."""

import re
from collections.abc import Iterable
from typing import Any

from vtc.data.conversations import IMAGE
from vtc.data.faults import RowFault
from vtc.data.labels import IGNORE, TurnEncoder, expand_images
from vtc.data.templates import special_tokens
from vtc.errors import InputError


class Judge:
    """Counts a sample's text tokens, and finds those that would train nothing, or be cut.

    Each image counts as `n_visual` tokens against `max_length` (None: no limit).
    """

    def __init__(self, encoder: TurnEncoder, max_length: int | None = None, n_visual: int = 576):
        self.encoder = encoder
        self.max_length = max_length
        self.n_visual = n_visual
        names = sorted(special_tokens(encoder.tokenizer) - {IMAGE}, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names))) if names else None

    def learn(self, samples: Iterable[dict[str, Any]]) -> None:
        """Tokenise many samples at once, in place of those of the last call."""
        self.encoder.forget()
        self.encoder.learn([s["conversations"] for s in samples if self._renders(s)])

    def __call__(self, sample: dict[str, Any]) -> list[str]:
        """Set the sample's `n_text_tokens`; what there is to note about it.

        Raises RowFault for one that the chat template refuses, that has no supervised token, or
        that --max-length would leave without an answer or without an image.
        """
        try:
            ids, labels = self.encoder.tokens(sample["conversations"])
        except InputError as error:
            raise RowFault(str(error)) from None
        if (labels == IGNORE).all():
            raise RowFault("no supervised token under this tokenizer")
        image = self.encoder.image_token_id
        sample["n_text_tokens"] = int((ids != image).sum())
        notes = self._spelled(sample)
        n_tokens = len(ids) + (len(ids) - sample["n_text_tokens"]) * (self.n_visual - 1)
        if self.max_length is not None and n_tokens > self.max_length:
            ids, labels = expand_images(ids, labels, image, self.n_visual)
            lost, kept = ids[self.max_length :], labels[: self.max_length]
            if (lost == image).any() or (kept == IGNORE).all():
                raise RowFault(f"longer than {self.max_length} tokens: no answer or image is left")
            notes.append(f"longer than {self.max_length} tokens: its end is cut in training")
        return notes

    def _renders(self, sample: dict[str, Any]) -> bool:
        try:
            self.encoder.template.spans(sample["conversations"])
        except InputError:
            return False
        return True

    def _spelled(self, sample: dict[str, Any]) -> list[str]:
        for turn in sample["conversations"]:
            found = self._special.search(turn["text"]) if self._special else None
            if found:
                return [f"a turn spells the special token {found[0]}"]
        return []
