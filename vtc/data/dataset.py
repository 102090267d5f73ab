"""Samples tokenised once for a whole training, whatever the batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from vtc.data.labels import IGNORE, Encoded, TurnEncoder
from vtc.data.packing import PackedRow, pack_questions, question_pairs
from vtc.errors import InputError

Turns = Literal["dialogue", "independent"]


@dataclass(frozen=True)
class TokenisedRow:
    """One sample ready to collate: its tokens (or its branches to draw from) and its images."""

    sample_id: str
    encoded: Encoded
    packed: PackedRow | None
    images: tuple[str, ...]


class TokenisedSamples(Dataset):
    """All samples' tokens in memory. An item is its own index: the collator looks it up."""

    def __init__(self, rows: Sequence[TokenisedRow]):
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> int:
        return index

    @property
    def supervised_tokens(self) -> int:
        """Supervised tokens of one pass over everything."""
        return int(sum((row.encoded.labels != IGNORE).sum() for row in self.rows))


def tokenise(
    samples: Sequence[dict[str, Any]],
    encoder: TurnEncoder,
    n_visual: int,
    turns: Turns = "dialogue",
    max_length: int | None = None,
) -> TokenisedSamples:
    """Tokenise samples, each image as `n_visual` tokens; `encoder` remembers spans between calls.

    `turns` = "independent" makes a branch of every question; "dialogue" keeps the conversation.
    A dialogue longer than `max_length` tokens loses its end, as in LLaVA; a question asked alone
    that is longer is refused.

    Raises InputError naming the sample that has no supervised token (within `max_length`).
    """
    conversations = [sample["conversations"] for sample in samples]
    if turns == "independent":
        encoder.learn(pair for turns_ in conversations for pair in question_pairs(turns_))
    else:
        encoder.learn(conversations)
    rows = []
    for sample in samples:
        packed = None
        if turns == "independent":
            packed = pack_questions(encoder, sample["conversations"], n_visual)
            _check_length(packed, max_length, sample["sample_id"])
            encoded = packed.pack()
        else:
            encoded = encoder.encode(sample["conversations"], n_visual)
            encoded = _cut(encoded, encoder.image_token_id, max_length, sample["sample_id"])
        rows.append(TokenisedRow(sample["sample_id"], encoded, packed, tuple(sample["images"])))
    return TokenisedSamples(rows)


def _check_length(packed: PackedRow, max_length: int | None, sample_id: str) -> None:
    longest = len(packed.shared) + max(len(ids) for ids, _ in packed.branches)
    if max_length is not None and longest > max_length:
        raise InputError(
            f"sample {sample_id}: one question with its images has {longest} tokens, more than "
            f"--max-length {max_length}; raise it"
        )


def _cut(encoded: Encoded, image_token: int, max_length: int | None, sample_id: str) -> Encoded:
    if max_length is not None and len(encoded.input_ids) > max_length:
        if (encoded.input_ids[max_length:] == image_token).any():
            raise InputError(
                f"sample {sample_id}: its images alone pass --max-length {max_length}; raise it"
            )
        encoded = Encoded(*(part[:max_length] for part in encoded))
    if not np.any(encoded.labels != IGNORE):
        raise InputError(
            f"sample {sample_id} has no supervised token; 'vtc check-data --llm DIR' sets such "
            "rows aside"
        )
    return encoded
