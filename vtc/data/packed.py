"""Samples as one row without padding, and where each of them begins."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vtc.data.labels import IGNORE, Encoded


def pack(rows: Sequence[Encoded]) -> dict[str, Any]:
    """Rows one behind the other, as a batch of one row of T tokens; see Collator for what it holds.

    `position_ids` begin again with every sample, and no sample predicts the next one's first token.
    `cu_seq_lens_q` and `cu_seq_lens_k` (int32 [samples + 1]) are where samples begin, and T;
    `max_length_q` and `max_length_k` the tokens of the longest: the names under which transformers
    passes them on to attention (`FlashAttentionKwargs`). Raises ValueError for independent
    questions, which need a mask within their row.
    """
    if any(row.turn_ids.max() > 1 for row in rows):
        raise ValueError("independent questions do not see one another; a packed row has no mask")
    lengths = np.array([len(row.input_ids) for row in rows])
    ends = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    following = np.concatenate([np.append(row.labels[1:], IGNORE) for row in rows])
    predicts = following != IGNORE
    targets = torch.from_numpy(following[predicts])
    longest = int(lengths.max())
    return {
        "input_ids": _row([row.input_ids for row in rows]),
        "position_ids": _row([row.position_ids for row in rows]),
        "logits_to_keep": torch.from_numpy(predicts)[None],
        "labels": targets,
        "shift_labels": targets,
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _row(parts: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts))[None]
