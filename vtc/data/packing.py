"""Many questions of one image in one row: they share the image, and do not see one another.

Each question-answer pair becomes a branch behind the tokens that all of them start with. Under
a block mask, and with positions that run on from the shared start in every branch, a branch's
logits are those of the question asked alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vtc.data.conversations import IMAGE
from vtc.data.labels import IGNORE, Encoded, TurnEncoder, expand_images
from vtc.data.templates import Turn

Turns = Literal["dialogue", "independent"]
"""How the turns of a conversation see one another: all before them, or only the image."""


@dataclass(frozen=True)
class Questions:
    """A shared start (int64 [P], unsupervised) and branches of (ids, labels), int64 [T_i] each.

    An image is one token here; it stands in the shared start.
    """

    shared: np.ndarray
    branches: tuple[tuple[np.ndarray, np.ndarray], ...]
    image_token_id: int

    @property
    def n_text(self) -> int:
        """Tokens other than images, of all questions."""
        shared = int((self.shared != self.image_token_id).sum())
        return shared + sum(len(ids) for ids, _ in self.branches)

    def encode(self, n_visual: int, chosen: Sequence[int] | None = None) -> Encoded:
        """The row with the chosen branches (default: all), in the given order."""
        picked = self.branches if chosen is None else [self.branches[index] for index in chosen]
        shared, _ = expand_images(self.shared, self.shared, self.image_token_id, n_visual)
        lengths = np.array([len(ids) for ids, _ in picked])
        start = len(shared)
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        blocks = np.repeat(np.arange(1, len(picked) + 1), lengths)
        hidden = np.full(start, IGNORE, dtype=np.int64)
        return Encoded(
            np.concatenate([shared, *(ids for ids, _ in picked)]),
            np.concatenate([hidden, *(labels for _, labels in picked)]),
            np.concatenate([np.zeros(start, dtype=np.int64), blocks]),
            np.concatenate([np.arange(start), start + within]).astype(np.int64),
        )


def question_pairs(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Every question of a conversation as a conversation of its own, with all its images.

    The images go first, each on its own line, as in LLaVA's prompts; a system turn stays.
    """
    system = [turn for turn in turns if turn["role"] == "system"]
    spoken = [turn for turn in turns if turn["role"] != "system"]
    marks = sum(turn["text"].count(IMAGE) for turn in spoken if turn["role"] == "user")
    pairs = []
    for question, answer in zip(spoken[::2], spoken[1::2], strict=True):
        text = question["text"].replace(IMAGE, "").strip()
        asked = {"role": "user", "text": "\n".join([*[IMAGE] * marks, text])}
        pairs.append([*system, asked, answer])
    return pairs


def pack_questions(encoder: TurnEncoder, pairs: Sequence[Sequence[Turn]]) -> Questions:
    """The questions of one conversation, tokenised each alone, as branches of one row."""
    alone = [encoder.tokens(pair) for pair in pairs]
    cut = common_start(alone)
    branches = tuple((ids[cut:], labels[cut:]) for ids, labels in alone)
    return Questions(alone[0][0][:cut], branches, encoder.image_token_id)


def common_start(alone: Sequence[tuple[np.ndarray, np.ndarray]]) -> int:
    """How many leading tokens all rows share, short of the token that predicts an answer.

    That token stays in the branch, so that every label is predicted from within its own branch.
    """
    limit = max(0, min(int(np.argmax(labels != IGNORE)) - 1 for _, labels in alone))
    first = alone[0][0][:limit]
    for ids, _ in alone[1:]:
        differ = np.flatnonzero(ids[: len(first)] != first)
        if len(differ):
            first = first[: differ[0]]
    return len(first)
