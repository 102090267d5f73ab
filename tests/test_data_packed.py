"""A packed row holds its samples as they are, and says where each begins."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vtc.data.collate import collate
from vtc.data.labels import IGNORE, Encoded
from vtc.data.packed import pack

token = st.integers(0, 9)
# Of every token: its id, and whether it is supervised.
tokens = st.lists(st.tuples(token, st.booleans()), min_size=1, max_size=7)


def encoded(tokens) -> Encoded:
    ids = np.array([token for token, _ in tokens])
    learnt = np.array([learnt for _, learnt in tokens])
    one = np.ones_like(ids)
    return Encoded(ids, np.where(learnt, ids, IGNORE), one, np.arange(len(ids)))


@given(st.lists(tokens, min_size=1, max_size=6))
def test_every_sample_stands_in_the_row_as_it_stands_alone(samples):
    rows = [encoded(sample) for sample in samples]
    batch = pack(rows)
    ends = batch["cu_seq_lens_q"]
    assert ends.dtype == torch.int32
    assert ends[0] == 0
    assert ends[-1] == batch["input_ids"].shape[1]
    assert batch["max_length_q"] == batch["max_length_k"] == ends.diff().max()
    assert torch.equal(ends, batch["cu_seq_lens_k"])
    alone = [collate([row], 99) for row in rows]
    for name in ("input_ids", "position_ids", "logits_to_keep"):
        assert batch[name].shape[0] == 1
        parts = batch[name].split(ends.diff().tolist(), dim=1)
        assert all(torch.equal(part, one[name]) for part, one in zip(parts, alone, strict=True))
    padded = collate(rows, 99)
    for name in ("labels", "shift_labels"):
        assert torch.equal(batch[name], padded[name])


def test_independent_questions_are_not_packed():
    row = encoded([(1, True), (2, True)])._replace(turn_ids=np.array([1, 2]))
    with pytest.raises(ValueError, match="do not see one another"):
        pack([row])
