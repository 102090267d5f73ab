"""The order of samples: every one once, similar lengths together, seeded, the longest first."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtc.data.batches import BatchOrder

SIZES = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 500)), min_size=1, max_size=90)


def cut(order, batch_size):
    rows = list(order)
    return [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]


@given(
    sizes=SIZES, batch=st.integers(1, 8), accumulate=st.integers(1, 4), bucket=st.integers(1, 9),
    epoch=st.integers(0, 3),
)  # fmt: skip
def test_every_sample_comes_once_in_the_batches_that_were_made(
    sizes, batch, accumulate, bucket, epoch
):
    order = BatchOrder(sizes, batch, accumulate=accumulate, bucket=bucket, seed=3)
    order.set_epoch(epoch)
    rows = list(order)
    assert sorted(rows) == list(range(len(sizes)))
    assert len(order) == len(sizes)
    # A short batch in the middle would shift all that are cut after it.
    assert cut(order, batch) == [list(made) for made in order.batches()]
    again = BatchOrder(sizes, batch, accumulate=accumulate, bucket=bucket, seed=3)
    again.set_epoch(epoch)
    assert list(again) == rows


def sizes_of(n=640, seed=0):
    random = np.random.default_rng(seed)
    images, text = random.integers(0, 5, n) > 0, random.integers(5, 400, n)
    return list(zip(images.astype(int).tolist(), text.tolist(), strict=True))


def padded(order, batch_size, visual_tokens):
    length = order.text + visual_tokens * order.images
    return sum(length[rows].max() * len(rows) for rows in cut(order, batch_size)) / length.sum()


@pytest.mark.parametrize("visual_tokens", [1, 144, 576])
def test_buckets_save_padding(visual_tokens):
    plain = padded(BatchOrder(sizes_of(), 8, bucket=1), 8, visual_tokens)
    sorted_ = padded(BatchOrder(sizes_of(), 8, bucket=8), 8, visual_tokens)
    assert sorted_ - 1 < 0.4 * (plain - 1)


def test_every_step_sees_the_samples_of_a_random_order():
    """Within a global batch, sorting changes no gradient: it is one sum over the same tokens."""
    plain = cut(BatchOrder(sizes_of(), 4, accumulate=8, bucket=1), 32)
    sorted_ = cut(BatchOrder(sizes_of(), 4, accumulate=8, bucket=8), 32)
    assert [Counter(rows) for rows in plain] == [Counter(rows) for rows in sorted_]
    assert plain != sorted_


def test_images_stand_apart_from_text_alone():
    order = BatchOrder(sizes_of(), 8, bucket=16)
    mixed = [len(set(order.images[rows].tolist())) > 1 for rows in cut(order, 8)]
    assert sum(mixed) <= len(mixed) / 16


@pytest.mark.parametrize("bucket", [1, 8])
def test_the_longest_rows_come_first(bucket):
    sizes = [*sizes_of(), (0, 2000), (3, 390)]
    first = cut(BatchOrder(sizes, 8, bucket=bucket), 8)[:2]
    assert {640, 641} <= {*first[0], *first[1]}


def test_epochs_and_seeds_differ():
    order = BatchOrder(sizes_of(), 8)
    first = list(order)
    order.set_epoch(1)
    assert list(order) != first
    assert list(BatchOrder(sizes_of(), 8, seed=1)) != first
    order.set_epoch(0)
    assert list(order) == first
