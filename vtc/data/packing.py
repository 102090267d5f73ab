"""Many questions of one image in one row: they share the image, and do not see one another.

Each question-answer pair becomes a branch behind the tokens that all of them start with. Under
a block mask, and with positions that run on from the shared start in every branch, a branch's
logits are those of the question asked alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vtc.data.conversations import IMAGE
from vtc.data.labels import IGNORE, Encoded, TurnEncoder, expand_images, labels_of
from vtc.data.templates import Turn


@dataclass(frozen=True)
class PackedRow:
    """A shared start (int64 [P], unsupervised) and branches of (ids, labels), int64 [T_i] each."""

    shared: np.ndarray
    branches: tuple[tuple[np.ndarray, np.ndarray], ...]

    def pack(self, chosen: Sequence[int] | None = None) -> Encoded:
        """The row with the chosen branches (default: all), in the given order."""
        picked = self.branches if chosen is None else [self.branches[index] for index in chosen]
        lengths = np.array([len(ids) for ids, _ in picked])
        start = len(self.shared)
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        hidden = np.full(start, IGNORE, dtype=np.int64)
        return Encoded(
            np.concatenate([self.shared, *(ids for ids, _ in picked)]),
            np.concatenate([hidden, *(labels for _, labels in picked)]),
            np.concatenate(
                [np.zeros(start, np.int64), np.repeat(np.arange(1, len(picked) + 1), lengths)]
            ),
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


def pack_questions(encoder: TurnEncoder, turns: Sequence[Turn], n_visual: int) -> PackedRow:
    """The questions of one conversation, tokenised each alone, as one row of branches."""
    alone = []
    for pair in question_pairs(turns):
        tokens = encoder.tokens(pair)
        ids = np.concatenate([piece.ids for piece in tokens])
        labels = np.concatenate([labels_of(piece) for piece in tokens])
        alone.append((ids, labels))
    cut = common_start(alone)
    first = alone[0][0][:cut]
    shared, _ = expand_images(first, first, encoder.image_token_id, n_visual)
    return PackedRow(
        shared,
        tuple(
            expand_images(ids[cut:], labels[cut:], encoder.image_token_id, n_visual)
            for ids, labels in alone
        ),
    )


def common_start(alone: Sequence[tuple[np.ndarray, np.ndarray]]) -> int:
    """How many leading tokens all rows share, short of the token that predicts an answer.

    That token stays in the branch, so that every label is predicted from within its own branch.
    """
    limit = min(int(np.argmax(labels != IGNORE)) - 1 for _, labels in alone)
    first = alone[0][0][:limit]
    for ids, _ in alone[1:]:
        differ = np.flatnonzero(ids[: len(first)] != first)
        if len(differ):
            first = first[: differ[0]]
    return max(0, len(first))
