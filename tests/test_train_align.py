"""The align objective: each visual token against the words of its region."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_samples import build, read

from vtc.data.queries import question
from vtc.errors import InputError
from vtc.model.assemble import assemble
from vtc.train.align import AlignTrainer, align_rows, region_targets
from vtc.train.inputs import Inputs
from vtc.train.questions import check_questions
from vtc.train.settings import PROJECTOR, AlignSettings
from vtc.train.stages import freeze_all_but_compressor
from vtc.train.trainer import fit_model


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=12),
    st.sampled_from(["sum", "mean"]),
    st.floats(0.1, 3),
)
def test_targets_are_the_cells_words(words, reduction, scale):
    embeddings = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([token for token, _ in words], dtype=torch.long)
    cells = torch.tensor([cell for _, cell in words], dtype=torch.long)
    targets = region_targets(ids, cells, embeddings, 4, AlignSettings(reduction, scale))
    for cell in range(4):
        own = [embeddings[token] for token, where in words if where == cell]
        wanted = sum(own, torch.zeros(3))
        if own and reduction == "mean":
            wanted = wanted / len(own)
        torch.testing.assert_close(targets[cell], wanted * scale)


def test_regions_fall_into_raster_cells(tiny_world, tmp_path):
    tokenizer = build(tiny_world).processor.tokenizer
    samples = read(tmp_path, tiny_world, n=1)
    samples.rows[0]["regions"] = [
        {"text": "red", "x": 0.0, "y": 0.0},
        {"text": "blue", "x": 1.0, "y": 0.4},
        {"text": "green", "x": 0.49, "y": 0.5},
    ]
    (row,) = align_rows(samples.rows, tokenizer, 4)
    cells = {tokenizer.decode([t]): c for t, c in zip(row.token_ids, row.cells, strict=True)}
    words = [tokenizer(word).input_ids for word in ("red", "blue", "green")]
    wanted = [cell for cell, ids in zip((0, 1, 2), words, strict=True) for _ in ids]
    assert row.cells.tolist() == wanted, cells


def test_align_learns_without_the_llm(tiny_world, tmp_path):
    one = build(tiny_world)
    freeze_all_but_compressor(one.model)
    settings = PROJECTOR.with_(
        objective="align", max_steps=60, batch_size=6, accumulate=1, learning_rate=3e-3,
        log_every=1, align=AlignSettings("sum", 1.8),
    )  # fmt: skip
    batches = Inputs(read(tmp_path, tiny_world), settings).align_collator(
        one.model, one.processor, one.encoder
    )
    log = fit_model(
        one.model, batches.dataset, batches, settings, tmp_path,
        trainer_class=AlignTrainer, align=settings.align,
    )  # fmt: skip
    assert log[0]["loss"] > 0.8
    assert log[-1]["loss"] < 0.6
    assert log[-1]["samples_seen"] == 360


def test_align_gives_a_compressor_that_reads_questions_those_of_its_samples(tiny_world, tmp_path):
    """Each row has that of its last turn."""
    one = assemble(tiny_world.encoder, tiny_world.qwen, "quecc", 4)
    samples = read(tmp_path, tiny_world)
    samples.rows[0]["conversations"] += [
        {"role": "user", "text": "what is red"},
        {"role": "assistant", "text": "a box"},
    ]
    settings = PROJECTOR.with_(objective="align", max_steps=3, batch_size=6, accumulate=1)
    check_questions(["quecc"], settings)
    collator = Inputs(samples, settings).align_collator(one.model, one.processor, one.encoder)
    batch = collator([0, 1])
    said = [
        one.processor.tokenizer.decode(row[own.bool()])
        for row, own in zip(batch["query_ids"], batch["query_mask"], strict=True)
    ]
    assert said[0].strip() == "what is red"
    assert said[1].strip() == question(samples.rows[1]["conversations"])
    freeze_all_but_compressor(one.model)
    (row, *_) = fit_model(
        one.model, collator.dataset, collator, settings, tmp_path,
        trainer_class=AlignTrainer, align=settings.align,
    )  # fmt: skip
    assert 0 < row["loss"] < 10


def test_align_refuses_what_it_cannot_use(tiny_world, tmp_path):
    tokenizer = build(tiny_world).processor.tokenizer
    samples = read(tmp_path, tiny_world, n=2).rows
    with pytest.raises(InputError, match="square number of visual tokens, not 6"):
        align_rows(samples, tokenizer, 6)
    samples[1]["regions"] = None
    with pytest.raises(InputError, match="sample 1: --objective align needs one image"):
        align_rows(samples, tokenizer, 4)
