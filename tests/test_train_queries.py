"""Training with a compressor that reads the question: what each answer sees, and what is learnt."""

from itertools import chain

import numpy as np
import pytest
import torch
from conftest import TinyWorld
from train_samples import read, rows

from vtc.data.collate import Collator
from vtc.data.dataset import tokenise
from vtc.data.labels import IGNORE, TurnEncoder
from vtc.model.assemble import Assembled, assemble
from vtc.train.inputs import Inputs
from vtc.train.settings import FINETUNE, PROJECTOR

ASKING = PROJECTOR.with_(template="chat")


def build(world: TinyWorld, llm: str = "qwen", visual_tokens: int = 4) -> Assembled:
    return assemble(world.encoder, getattr(world, llm), "quecc", visual_tokens)


def collator(one: Assembled, samples, settings=ASKING) -> Collator:
    return Inputs(samples, settings).lm_collator(one.model, one.processor, one.encoder)


def loss(one: Assembled, batch) -> torch.Tensor:
    return one.model(**batch, use_cache=False).loss


@pytest.mark.parametrize("llm", ["qwen", "llama"])
def test_an_answer_is_learnt_behind_the_prompt_of_its_own_question(
    tiny_world: TinyWorld, tmp_path, llm: str
):
    """Each row of the batch is the prompt that evaluation gives, its image asked its question."""
    one = build(tiny_world, llm)
    samples = read(tmp_path, tiny_world, n=2, questions=3)
    batch = collator(one, samples)([0, 1])
    tokenizer, image = one.processor.tokenizer, one.processor.image_token_id
    encoder = TurnEncoder(tokenizer, "chat")
    asked = [tokenizer.decode(ids[m.bool()], skip_special_tokens=True)
             for ids, m in zip(batch["query_ids"], batch["query_mask"], strict=True)]  # fmt: skip
    assert asked == [f"What colour is it {k} ?" for k in range(3)] * 2
    assert batch["query_images"].tolist() == [0, 0, 0, 1, 1, 1]
    assert len(batch["vision_levels"]) == 2
    for number, ids in enumerate(batch["input_ids"]):
        talk = samples.rows[number // 3]["conversations"][: 2 * (number % 3) + 2]
        start = int(np.argmax(encoder.tokens(talk)[0] == image))
        prompt = encoder.prompt(talk[:-1])
        expanded = [*prompt[:start], *[image] * 4, *prompt[start + 1 :]]
        assert ids[: len(expanded)].tolist() == expanded
        first = int(batch["logits_to_keep"][number].int().argmax())
        assert first == len(expanded) - 1


@pytest.mark.parametrize("turns", ["dialogue", "independent"])
def test_the_same_tokens_are_learnt_as_with_other_compressors(tiny_world, tmp_path, turns: str):
    samples = read(tmp_path, tiny_world, n=6, questions=3, text_only=2).rows
    encoder = TurnEncoder(build(tiny_world).processor.tokenizer, "chat")
    for scope in ("latest", "first", "all"):
        plain, asking = (
            tokenise(samples, encoder, turns, how).rows for how in (None, scope)
        )  # fmt: skip
        for one, other in zip(plain, asking, strict=True):
            learnt = [
                [labels[labels != IGNORE].tolist() for _, labels in _parts(row.tokens)]
                for row in (one, other)
            ]
            assert [*chain(*learnt[0])] == [*chain(*learnt[1])]


def _parts(tokens):
    branches = getattr(tokens, "branches", None)
    return [(tokens.ids, tokens.labels)] if branches is None else branches


def test_batch_loss_is_that_of_its_rows(tiny_world: TinyWorld, tmp_path):
    """Several images in a row, rows of text alone, equal questions: each as if it came alone."""
    made = rows(4, questions=2, text_only=1)
    made[1]["image"] = ["1.png", "2.png"]
    made[1]["conversations"][0]["value"] = "<image>\n<image>\nWhat colour ?"
    one = build(tiny_world)
    samples = _samples(tmp_path, tiny_world, made)
    collate = collator(one, samples)
    total, count = 0.0, 0
    for number in range(4):
        batch = collate([number])
        total += loss(one, batch).item() * len(batch["labels"])
        count += len(batch["labels"])
    together = collate([0, 1, 2, 3])
    assert loss(one, together).item() == pytest.approx(total / count, rel=1e-5)
    packed = collator(one, samples, ASKING.with_(pack=True))([0, 1, 2, 3])
    from vtc.train.attention import set_attention

    set_attention(one.model, ASKING.with_(pack=True))
    assert loss(one, packed).item() == pytest.approx(total / count, rel=1e-5)


def _samples(folder, world, made):
    import json

    from vtc.data.samples import read_samples

    (folder / "made.json").write_text(json.dumps(made))
    return read_samples([folder / "made.json"], world.images)


def test_the_whole_llm_learns_under_autocast(tiny_world: TinyWorld, tmp_path):
    """The pass over the question, without gradients, takes nothing from the pass that trains."""
    from vtc.train.stages import unfreeze_for_finetune

    one = build(tiny_world)
    unfreeze_for_finetune(one.model)
    batch = collator(one, read(tmp_path, tiny_world), FINETUNE)([0, 1])
    one.model.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss(one, batch).backward()
    for name, weight in one.model.model.language_model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_questions_are_read_once_as_long_as_the_llm_stays(tiny_world: TinyWorld, monkeypatch):
    from vtc.model import query
    from vtc.train.stages import freeze_all_but_compressor

    one = build(tiny_world)
    llm, read = one.model.model.language_model, []
    whole = query.read_texts
    monkeypatch.setattr(query, "read_texts", lambda *given: read.append(given[1]) or whole(*given))
    asked = one.processor.query_inputs(["two circles", "red", "two circles"])
    given = asked["query_ids"], asked["query_mask"]
    free = query.query_vectors(llm, *given)
    assert torch.equal(free[0], free[2])
    freeze_all_but_compressor(one.model)
    for _ in range(2):
        kept = query.query_vectors(llm, *given)
        torch.testing.assert_close(kept, free, rtol=1e-5, atol=1e-5)
    assert [len(texts) for texts in read] == [2, 2, 0]
    with torch.no_grad():
        llm.layers[0].mlp.down_proj.weight.mul_(1.5)
    changed = query.query_vectors(llm, *given)
    assert (changed - kept).abs().max() > 1e-3
    # A swap of moving averages: torch counts no write through .data.
    llm.layers[1].self_attn.o_proj.weight.data.mul_(1.5)
    swapped = query.query_vectors(llm, *given)
    assert (swapped - changed).abs().max() > 1e-3
    assert [len(texts) for texts in read] == [2, 2, 0, 2, 2]


def test_a_question_is_its_last_state_alone(tiny_world: TinyWorld):
    one = build(tiny_world, "llama")
    llm = one.model.model.language_model.train()
    asked = one.processor.query_inputs(["How many circles are there ?", "two"])
    found = one.model.model.read_queries(asked["query_ids"], asked["query_mask"])
    assert llm.training
    assert not found.requires_grad
    tokenizer = one.processor.tokenizer
    llm.eval()
    for vector, text in zip(found, ["How many circles are there ?", "two"], strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        assert ids[0, 0] == tokenizer.bos_token_id
        expected = llm(input_ids=ids).last_hidden_state[0, -1]
        torch.testing.assert_close(vector, expected, rtol=1e-5, atol=1e-5)


def test_a_question_that_is_missing_is_asked_for(tiny_world: TinyWorld):
    one = build(tiny_world)
    ids = torch.full((1, 8), one.processor.image_token_id)
    pixels = torch.zeros(1, 3, 48, 48)
    for call in (one.model, one.model.generate):
        with pytest.raises(ValueError, match=r"the processor makes them of query=\[\.\.\.\]"):
            call(input_ids=ids[:, :4], pixel_values=pixels)
    asked = one.processor.query_inputs(["red", "blue"])
    with pytest.raises(ValueError, match="2 questions for 1 images"):
        one.model(input_ids=ids, pixel_values=pixels, **asked)
    which = torch.tensor([0, 0])
    tokens = one.model.model.compress(one.model.model.encode(pixels), **asked, query_images=which)
    assert tokens.shape == (2, 4, 48)
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3


def test_a_run_beside_others_ends_as_it_would_alone(tiny_world: TinyWorld, tmp_path):
    """Questions that one run has read serve the next, and change nothing."""
    from train_runs import STAGE_1, about, same_run, silent, stage_1

    from vtc.train.checkpoints import Saving
    from vtc.train.jobs import ProjectorJob
    from vtc.train.projector import train_projectors

    samples, settings = read(tmp_path, tiny_world), STAGE_1.with_(template="chat", max_steps=3)
    (alone,) = stage_1(
        tiny_world, samples, tmp_path / "alone", settings, compressor="quecc", every=0
    )
    job = ProjectorJob(
        str(tiny_world.encoder), str(tiny_world.qwen), ("avgpool", "quecc"), (1, 4),
        tmp_path / "beside", saving=Saving(0),
    )  # fmt: skip
    *_, beside = train_projectors(
        job, Inputs(samples, settings), footer=about(settings), say=silent, advance=silent
    )
    assert beside.name == alone.name == "quecc-v4"
    same_run(alone, beside)


def test_a_model_that_reads_the_question_is_not_shared_out(tiny_world: TinyWorld):
    from vtc.errors import InputError
    from vtc.train.sharding import shard

    with pytest.raises(InputError, match="quecc, which reads the question, does not train under"):
        shard(build(tiny_world).model)


def test_what_passes_the_longest_row_is_left_out(tiny_world: TinyWorld, tmp_path):
    """Of a dialogue the answers behind it; a sample whose first answer does not fit is refused."""
    from vtc.errors import InputError

    one, samples = build(tiny_world), read(tmp_path, tiny_world, n=1, questions=3)
    whole = collator(one, samples)([0])
    lengths = (whole["position_ids"].max(1).values + 1).tolist()
    cut = collator(one, samples, ASKING.with_(max_length=lengths[1]))([0])
    assert len(cut["input_ids"]) == len(cut["query_ids"]) == 2
    with pytest.raises(InputError, match="sample 0: its images and answer pass --max-length"):
        collator(one, samples, ASKING.with_(max_length=6))([0])
