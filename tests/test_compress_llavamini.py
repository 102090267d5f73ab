"""LLaVA-Mini: its layers are Llama's, text reads images and no answer, in training as after it."""

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from compress_features import features_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from train_runs import STEPS, about, silent
from train_samples import read
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from vtc.catalog import encoders, llms
from vtc.commands.eval_dry_run import cost, sittings_of
from vtc.compress.decoder_layer import DecoderLayer
from vtc.compress.llavamini import LlavaMini
from vtc.compress.statement import statement
from vtc.cost.data import DataFacts
from vtc.cost.job import Job, Parts, flops
from vtc.cost.memory import CompressorCost
from vtc.errors import InputError
from vtc.evaluate import runner
from vtc.evaluate.benchmark import read_benchmark
from vtc.evaluate.items import read_items
from vtc.evaluate.vllm_engine.check import refuse_fusing
from vtc.model.assemble import assemble
from vtc.model.fusing import fused_embeddings
from vtc.model.reading import read as read_prompts
from vtc.model.reading import read_on
from vtc.model.repeating import repeat_at
from vtc.train.finetune import finetune_runs
from vtc.train.inputs import Inputs
from vtc.train.jobs import FinetuneJob, ProjectorJob
from vtc.train.projector import train_projectors
from vtc.train.questions import check_fusing
from vtc.train.settings import FINETUNE, PROJECTOR

WIDTH, TEXT, HEADS, SIDE = 32, 24, 2, 6
QUICK = {**STEPS, "max_steps": 2, "log_every": 1}
OURS = {
    "norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
    "out": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip


class Llama(torch.nn.Module):
    """transformers' decoder layers with the weights of ours, run once over all tokens."""

    def __init__(self, layers: Any, dtype: torch.dtype):
        super().__init__()
        config = LlamaConfig(
            hidden_size=TEXT, num_attention_heads=HEADS, num_key_value_heads=HEADS,
            intermediate_size=layers[0].gate.out_features, rms_norm_eps=1e-5,
        )  # fmt: skip
        config._attn_implementation = "sdpa"
        self.rotary = LlamaRotaryEmbedding(config)
        self.layers = torch.nn.ModuleList(
            LlamaDecoderLayer(config, number) for number in range(len(layers))
        ).to(dtype)
        for theirs, own in zip(self.layers, layers, strict=True):
            state = {f"{OURS[n.split('.')[0]]}.weight": w for n, w in own.state_dict().items()}
            theirs.load_state_dict(state)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(states.shape[1])[None]
        for layer in self.layers:
            found = layer(
                states, attention_mask=None, position_ids=positions,
                position_embeddings=self.rotary(states, positions),
            )  # fmt: skip
            states = found[0] if isinstance(found, tuple) else found
        return states


def made(v: int = 4, dtype: torch.dtype = torch.float32, **more: Any) -> LlavaMini:
    torch.manual_seed(0)
    compressor = LlavaMini(
        vision_width=WIDTH, text_width=TEXT, depth=4, grid=(SIDE, SIDE), visual_tokens=v,
        **{"heads": HEADS, "layers": 3, **more},
    )  # fmt: skip
    with torch.no_grad():
        for weight in compressor.parameters():  # Norms and biases count too.
            weight.normal_(std=0.3)
    return compressor.to(dtype)


def causal(n: int) -> torch.Tensor:
    return torch.ones(1, n, n, dtype=torch.bool).tril()


# transformers' norms and rotations are in fp32 whatever the type, as ours.
CLOSE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 0.1}


@pytest.mark.parametrize("dtype", list(CLOSE))
@pytest.mark.parametrize("v", [1, 9])
def test_it_is_llamas_layers_over_patches_visual_tokens_and_text(v, dtype):
    compressor = made(v, dtype)
    features = features_of(compressor, WIDTH, TEXT, batch=2, dtype=dtype)
    text = torch.randn(2, 5, TEXT, dtype=torch.float64).to(dtype)
    tokens, memory = compressor.read(features)
    fused = compressor.fuse(text, memory, torch.tensor([[0], [1]]), causal(5).expand(2, -1, -1))
    patches = features.levels[compressor.level]
    values = compressor.patch_norm(patches)
    queries = compressor.query_norm(compressor.queries) + compressor.query_pos
    few = compressor.attn(queries, values + compressor.pos_embed, values)
    whole = torch.cat([compressor.proj(patches), compressor.proj(few), text], dim=1)
    expected = Llama(compressor.layers, dtype)(whole)[:, -v - 5 :]
    found = torch.cat([tokens, fused], dim=1)
    torch.testing.assert_close(found, expected, rtol=CLOSE[dtype], atol=CLOSE[dtype])


def test_its_size_is_the_published_one():
    """Facts of the paper's own size: four layers of Llama-7B, and a cross-attention of 4.2 M."""
    with torch.device("meta"):
        compressor = LlavaMini(
            vision_width=1024, text_width=4096, depth=24, grid=(24, 24), visual_tokens=1
        )
    count = {
        part: sum(weight.numel() for weight in getattr(compressor, part).parameters())
        for part in ("layers", "attn", "proj")
    }
    assert count["layers"] == 4 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096)
    assert count["attn"] == pytest.approx(4.2e6, rel=0.01)
    assert count["proj"] == pytest.approx(20.98e6, rel=0.001)
    # 576 + V + 60 tokens take about 1,060 GFLOP with a last layer over all patches.
    last: Any = compressor.layers[-1]
    a_token, a_pair = compressor.text_flops()
    fused = compressor.flops() + 60 * a_token + 3600 * a_pair
    fused -= compressor.attn.flops(1, 576) + 577 * 2 * (1024 * 4096 + 4096**2)
    fused += last.flops(577, 577) - last.flops(577, 577, 1)
    assert fused == pytest.approx(1.06e12, rel=0.01)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_flops_of_text_are_those_torch_counts(n):
    compressor = made()
    memory = compressor.read(features_of(compressor, WIDTH, TEXT))[1]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        compressor.fuse(torch.randn(1, n, TEXT), memory, torch.zeros(1, 1).long(), causal(n))
    a_token, a_pair = compressor.text_flops()
    assert counter.get_total_flops() == a_token * n + a_pair * n * n


def test_several_images_are_read_together_and_none_is_not():
    compressor = made()
    memory = compressor.read(features_of(compressor, WIDTH, TEXT, batch=3))[1]
    text = torch.randn(1, 4, TEXT)

    def fused(*images: int) -> torch.Tensor:
        return compressor.fuse(text, memory, torch.tensor([images]), causal(4))

    torch.testing.assert_close(fused(1, 2), fused(2, 1))
    torch.testing.assert_close(fused(1, -1), fused(1))
    assert not torch.allclose(fused(1), fused(2), atol=1e-3)
    assert not torch.allclose(fused(1), fused(1, 2), atol=1e-3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"layers": 0}, "layers = 0; take at least 1"),
        ({"heads": 8}, "8 heads of width 3"),
        ({"heads": 5}, "5 heads do not divide"),
        ({"hidden": 0}, "hidden = 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(more, words):
    with pytest.raises(InputError, match=words):
        made(**more)


def test_a_layer_in_two_goes_is_one():
    layer = DecoderLayer(TEXT, HEADS, 40).double()
    states = torch.randn(1, 7, TEXT, dtype=torch.float64)
    whole, _ = layer(states, torch.arange(7))
    first, past = layer(states[:, :4], torch.arange(4))
    rest, _ = layer(states[:, 4:], torch.arange(4, 7), past, torch.ones(3, 7).tril(4).bool())
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole)
    last, _ = layer(states, torch.arange(7), None, torch.ones(2, 7).tril(5).bool(), last=2)
    torch.testing.assert_close(last, whole[:, -2:])


@pytest.fixture(scope="module")
def samples(tiny_world, tmp_path_factory):
    return read(tmp_path_factory.mktemp("samples"), tiny_world, n=6, questions=3, text_only=1)


@pytest.fixture(scope="module")
def built(tiny_world):
    one = assemble(tiny_world.encoder, tiny_world.qwen, "llava-mini", 4, settings={"layers": 2})
    with torch.no_grad():
        for weight in one.model.compressor.parameters():
            weight.normal_(std=0.2)
    return one


def logits_of(one, batch) -> torch.Tensor:
    """Logits at all positions [B, T, vocabulary]."""
    kept = ("labels", "shift_labels", "logits_to_keep")
    with torch.no_grad():
        return one.model(**{name: part for name, part in batch.items() if name not in kept}).logits


def collated(one, samples, turns, rows) -> dict[str, Any]:
    return Inputs(samples, FINETUNE.with_(**QUICK, turns=turns)).lm_collator(
        one.model, one.processor, one.encoder
    )(rows)


@settings(max_examples=12)
@given(
    turns=st.sampled_from(["dialogue", "independent"]),
    row=st.integers(0, 4),
    answer=st.integers(0, 2),
    other=st.integers(60, 90),
)
def test_no_answer_leaks_into_what_predicts_it(built, samples, turns, row, answer, other):
    batch = collated(built, samples, turns, [row, 5])
    before = logits_of(built, batch)
    predicting = batch["logits_to_keep"][0].nonzero().squeeze(1)
    # Where one answer ends and the next begins, positions jump.
    starts = [0, *(1 + (predicting.diff() > 1).nonzero().squeeze(1)).tolist()]
    place = int(predicting[starts[answer]])
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    ids = changed["input_ids"][0]
    ids[place + 1] = other if int(ids[place + 1]) != other else other + 1
    after = logits_of(built, changed)
    torch.testing.assert_close(after[0, : place + 1], before[0, : place + 1])
    assert not torch.equal(after[0, place + 1], before[0, place + 1])
    torch.testing.assert_close(after[1], before[1])
    if turns == "dialogue":
        return
    # Of independent questions none reads another's answer.
    end = int(predicting[starts[answer + 1]]) if answer < 2 else None
    for number, start in enumerate(starts):
        if number > answer:
            at = int(predicting[start])
            torch.testing.assert_close(after[0, at], before[0, at])
    assert end is None or end > place


def test_a_row_is_learnt_as_it_will_be_read(built, samples):
    """The prompt by the evaluation's reader, padded on the left, then the answer's own tokens."""
    model: Any = built.model
    batch = collated(built, samples, "independent", [0])
    expected = logits_of(built, batch)[0]
    ids, keep = batch["input_ids"][0], batch["logits_to_keep"][0]
    first = int(keep.nonzero()[0])
    answer = [int(t) for t in ids[first + 1 : first + 2]]
    levels = batch["vision_levels"]
    rows = [ids[: first + 1].tolist(), [7, 8, *ids[: first + 1].tolist()]]
    seen = {"vision_levels": levels, "query_images": torch.tensor([0, 0])}
    reading = read_prompts(model, rows, seen)
    torch.testing.assert_close(reading.logits[0], expected[first], rtol=1e-3, atol=1e-4)
    behind = read_on(model, [answer], reading.of([0]))
    torch.testing.assert_close(behind[0, 0], expected[first + 1], rtol=1e-3, atol=1e-4)


def test_independent_questions_are_fused_as_if_alone(built, samples):
    together = collated(built, samples, "independent", [1])
    expected = logits_of(built, together)[0]
    keep = together["logits_to_keep"][0].nonzero().squeeze(1)
    collator = Inputs(samples, FINETUNE.with_(**QUICK, turns="independent")).lm_collator(
        built.model, built.processor, built.encoder
    )
    tokens: Any = collator.dataset.rows[1].tokens
    found = []
    for question in range(3):
        encoded = tokens.encode(collator.n_visual, [question])
        alone = {
            "input_ids": torch.from_numpy(encoded.input_ids)[None],
            "position_ids": torch.from_numpy(encoded.position_ids)[None],
            "fused_mask": torch.from_numpy(encoded.labels == -100).long()[None],
            "vision_levels": together["vision_levels"],
        }
        at = torch.from_numpy(encoded.labels[1:] != -100)
        found.append(logits_of(built, alone)[0, :-1][at])
    torch.testing.assert_close(torch.cat(found), expected[keep], rtol=1e-3, atol=1e-4)


def test_the_text_is_fused_and_only_where_there_is_an_image(built, samples):
    batch = collated(built, samples, "dialogue", [0, 5])
    seen = built.model.model.look(batch["vision_levels"])
    with torch.no_grad():
        embeds = fused_embeddings(
            built.model.model, batch["input_ids"], seen, None, batch["fused_mask"]
        )
    plain = built.model.get_input_embeddings()(batch["input_ids"])
    same = (embeds == plain).all(-1)
    shown = batch["input_ids"] == built.processor.image_token_id
    assert same[1].all()
    assert torch.equal(~same[0], batch["fused_mask"][0].bool() | shown[0])


def test_repeated_tokens_and_fused_text(built, tiny_world):
    one = assemble(tiny_world.encoder, tiny_world.qwen, "llava-mini", 4)
    repeat_at(one.model, one.processor, 2)
    image = one.processor.image_token_id
    ids = torch.tensor([[5, *[image] * 8, 7, 9]])
    new = one.model.generate(
        input_ids=ids, vision_levels=torch.rand(1, 1, 36, 32), max_new_tokens=2
    )
    assert new.shape[1] > ids.shape[1]
    with pytest.raises(ValueError, match="12 image tokens for 8 visual tokens"):
        one.model(
            input_ids=torch.tensor([[5, *[image] * 12]]), vision_levels=torch.rand(1, 1, 36, 32)
        )


def test_trained_and_evaluated(tiny_world, samples, tmp_path):
    """Both stages, from the run's folder; and what a dry run counts."""
    shown = samples._replace(rows=samples.rows[:5])
    first = PROJECTOR.with_(**QUICK)
    job = ProjectorJob(
        str(tiny_world.encoder), str(tiny_world.qwen), ("llava-mini",), (4,), tmp_path / "1",
        compressor_settings={"layers": 2},
    )  # fmt: skip
    [stage1] = train_projectors(job, Inputs(shown, first), footer=about(first))
    second = FINETUNE.with_(**QUICK, turns="independent")
    [run] = finetune_runs(
        FinetuneJob((stage1,), tmp_path / "2"), Inputs(samples, second), footer=about(second)
    )
    asked = [
        {"id": n, "image": f"{n % 3}.png" if n < 5 else None, "question": f"{n} ?", "answer": "red"}
        for n in range(6)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(asked))
    (tmp_path / "b.toml").write_text(
        'name = "b"\ntask = "ocr"\nrows = "rows.json"\nmetric = "anls"\nmax_new_tokens = 3\n'
        f'images = "{tiny_world.images}"\n'
        '[columns]\nid = "id"\nimage = "image"\nanswers = "answer"\n'
    )
    benchmark = read_benchmark(tmp_path / "b.toml")
    exam = runner.Exam.of(benchmark, read_items(benchmark))
    track = lambda what, total: contextlib.nullcontext(silent)  # noqa: E731
    rows = [
        runner.evaluate([run], [exam], runner.Settings(batch_size=size), track) for size in (1, 4)
    ]
    assert [row["prediction"] for row in rows[0]] == [row["prediction"] for row in rows[1]]
    [sitting] = sittings_of(run, runner.Settings())
    found = cost(sitting, exam, runner.Settings())
    lengths = [row["n_text_tokens"] for row in rows[0] if row["item_id"] != "5"]
    a_token, a_pair = sitting.compressor.text_flops
    text = sum(a_token * n + a_pair * n * n for n in lengths)
    assert found.compressor == 5 * sitting.compressor.flops + text
    with pytest.raises(InputError, match="rewrites the text's embeddings"):
        refuse_fusing({"compressor": "llava-mini"}, run)


def test_costs_of_training_count_the_text():
    stated = CompressorCost(
        *statement("llava-mini", vision_width=WIDTH, text_width=TEXT, depth=4, grid=(6, 6),
                   visual_tokens=4)
    )  # fmt: skip
    a_token, a_pair = stated.text_flops
    assert a_token > 0
    parts = Parts(
        "Qwen1.5-0.5B", llms.shape("Qwen1.5-0.5B"), "clip",
        encoders.shape("clip-vit-large-patch14-336"), "llava-mini", stated, 4,
    )  # fmt: skip
    facts = DataFacts(100, 30, 20, 100, text_only_rows=20, images=80)
    flags = {"batch_size": 4, "accumulate": 1, "epochs": 1.0, "max_length": 99, "method": "full"}
    plain = replace(parts, compressor=replace(stated, text_flops=(0, 0)))
    ours, less = (flops(Job("finetune", "", one, facts, flags))[0] for one in (parts, plain))
    # 80 prompts of 10 tokens, forward and backward.
    assert ours - less == pytest.approx(3 * 80 * (10 * a_token + 100 * a_pair))


@pytest.mark.parametrize("flag", ["pack", "compile"])
def test_what_has_no_room_for_fused_text_is_refused(flag):
    given = FINETUNE.with_(**{flag: True})
    with pytest.raises(InputError, match=f"--{flag} is for batches .* llava-mini fuses"):
        check_fusing(["avgpool", "llava-mini"], given)
    check_fusing(["avgpool"], given)
