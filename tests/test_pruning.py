"""Tokens dropped inside the LLM: equal to masks, alone as in batches, and really gone."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from conftest import TinyWorld
from pruned_by_masks import ByMasks
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from vtc.compress.inllm import InLlm
from vtc.compress.pruning import Schedule
from vtc.data.images import open_image
from vtc.errors import InputError
from vtc.model.assemble import Assembled, assemble
from vtc.model.backbones import Llm, load_llm
from vtc.model.pruned_cache import PrunedLayer
from vtc.model.reading import read, read_on

LAYERS, N = 6, 36
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "fastv": ("fastv", {"average": 18}),
    "fastv-1": ("fastv", {"layer": 1, "ratio": 0.2}),
    "fastv-none-left": ("fastv", {"layer": 3, "average": 18}),
    "pyramiddrop": ("pyramiddrop", {}),
    "pyramiddrop-2": ("pyramiddrop", {"stages": 6, "average": 12}),
    "packed": ("pyramiddrop", {"stages": 3, "reference_behaviour": True}),
}


@pytest.fixture(scope="module")
def llms(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Qwen2 and Llama of six layers, with the tokenizers of the tiny ones."""
    root, made = tmp_path_factory.mktemp("deep"), {}
    for name in ("qwen", "llama"):
        shutil.copytree(getattr(tiny_world, name), root / name)
        config = json.loads((root / name / "config.json").read_text())
        config |= {"num_hidden_layers": LAYERS}
        config.pop("layer_types", None)
        (root / name / "config.json").write_text(json.dumps(config))
        (root / name / "model.safetensors").unlink()
        torch.manual_seed(4)
        fresh = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(root / name))
        fresh.save_pretrained(root / name)
        made[name] = root / name
    return made


def built(tiny_world: TinyWorld, llm: Path, case: str, kind: str = "sdpa") -> Assembled:
    name, settings = CASES[case]
    made = assemble(tiny_world.encoder, llm, name, settings=settings, seed=2)
    made.model.eval()
    made.model.model.language_model.set_attn_implementation(kind)
    return made


def pixels_of(made: Assembled, world: TinyWorld, numbers: tuple[int, ...]) -> torch.Tensor | None:
    images = [open_image(world.images, world.image_names[number]) for number in numbers]
    if not images:
        return None
    return made.processor.image_processor(images, return_tensors="pt")["pixel_values"]


def rows_of(made: Assembled) -> list[tuple[list[int], tuple[int, ...]]]:
    """Token rows and their images: one, two, none, and another with one; all of other lengths."""
    image = [made.processor.image_token_id] * N
    return [
        ([7, *image, 9, 11, 12], (0,)),
        ([8, 5, *image, 10, *image, 6, 13, 9, 7, 8], (1, 2)),
        ([11, 12, 9], ()),
        ([7, 8, 9, *image, 5, 6, 10, 12, 13, 11, 6], (3,)),
    ]


def padded(
    made: Assembled, world: TinyWorld, left: bool = True, rows: list | None = None
) -> dict[str, Any]:
    rows = rows or rows_of(made)
    longest = max(len(ids) for ids, _ in rows)
    pads = [[0] * (longest - len(ids)) for ids, _ in rows]
    join = (lambda pad, own: [*pad, *own]) if left else (lambda pad, own: [*own, *pad])
    mask = [join(pad, [1] * len(ids)) for pad, (ids, _) in zip(pads, rows, strict=True)]
    shown = tuple(number for _, own in rows for number in own)
    return {
        "input_ids": torch.tensor([join(p, ids) for p, (ids, _) in zip(pads, rows, strict=True)]),
        "attention_mask": torch.tensor(mask),
        "position_ids": (torch.tensor(mask).cumsum(1) - 1).clamp(min=0),
        "pixel_values": pixels_of(made, world, shown),
    }


def schedule_of(made: Assembled) -> Schedule:
    compressor = made.model.compressor
    assert isinstance(compressor, InLlm)
    return compressor.schedule(LAYERS)


def lengths(cache: Any) -> list[int]:
    return [layer.keys.shape[2] for layer in cache.layers]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "llm", "kind"),
    [
        *((case, "qwen", "sdpa") for case in CASES),
        *((case, "llama", "eager") for case in ("fastv", "pyramiddrop")),
    ],
)
@torch.no_grad()
def test_a_batch_and_its_answers_are_those_of_masks_alone(tiny_world, llms, case, llm, kind):
    """Four rows padded on the left: prefill, and eight tokens with the cache, as by masks alone."""
    made = built(tiny_world, llms[llm], case, kind)
    inputs = padded(made, tiny_world)
    generated = made.model.generate(
        **inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    made.model.model.language_model.set_attn_implementation("eager")
    reference = ByMasks(made.model)
    gone = []
    for number, (ids, shown) in enumerate(rows_of(made)):
        pixels = pixels_of(made, tiny_world, shown)
        answer = generated.sequences[number, inputs["input_ids"].shape[1] :].tolist()
        expected = reference.logits([*ids, *answer[:-1]], len(ids), pixels)[len(ids) - 1 :]
        found = torch.stack([step[number] for step in generated.logits])
        close(found, expected)
        gone.append(sorted(reference.gone))
    dropped = N - schedule_of(made).kept
    assert [len(own) for own in gone] == [dropped, 2 * dropped, 0, dropped]
    assert len({tuple(own) for own in gone}) == 4


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("case", ["fastv", "pyramiddrop", "packed"])
@torch.no_grad()
def test_rows_of_a_batch_are_those_alone_wherever_the_padding_is(tiny_world, llms, case, left):
    made = built(tiny_world, llms["qwen"], case)
    inputs = padded(made, tiny_world, left)
    together = made.model(**inputs)
    for number, (ids, shown) in enumerate(rows_of(made)):
        pixels = pixels_of(made, tiny_world, shown)
        alone = made.model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0]
        own = together.logits[number][inputs["attention_mask"][number].bool()]
        close(own, alone)
        # What was dropped has no logits.
        kept = schedule_of(made).kept
        assert int((own == 0).all(-1).sum()) == len(shown) * (N - kept)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("case", ["fastv", "fastv-none-left", "pyramiddrop", "packed"])
@torch.no_grad()
def test_a_prompt_that_ends_with_an_image_keeps_its_last_token(tiny_world, llms, case, left):
    """As a base LLM's (template plain): told from that token's state, by masks the same."""
    made = built(tiny_world, llms["qwen"], case)
    image = [made.processor.image_token_id] * N
    rows = [
        ([7, 8, 5, *image], (0,)),
        ([9, *image, 10, *image], (1, 2)),
        ([*image], (3,)),
        ([11, *image, 12, 9], (0,)),
    ]
    inputs = padded(made, tiny_world, left, rows)
    found = made.model(**inputs).logits
    assert found.isfinite().all()
    made.model.model.language_model.set_attn_implementation("eager")
    reference = ByMasks(made.model)
    for number, (ids, shown) in enumerate(rows):
        expected = reference.logits(ids, len(ids), pixels_of(made, tiny_world, shown))
        own = found[number][inputs["attention_mask"][number].bool()]
        close(own[-1], expected[-1])
        assert own[-1].abs().max() > 0
        # The place takes one of the image's own, unless the image has none left.
        left_over = max(schedule_of(made).kept * len(shown), ids[-1] == image[0])
        assert int((own == 0).all(-1).sum()) == len(shown) * N - left_over


@pytest.mark.parametrize("case", ["fastv", "pyramiddrop", "packed"])
def test_answers_at_hand_are_read_behind_their_prompts(tiny_world, llms, case):
    """Several tokens at a time behind a batch of prompts, as likelihoods are: by masks the same."""
    made = built(tiny_world, llms["qwen"], case)
    rows, answers = rows_of(made)[:3], [[9, 12, 5, 7], [10], [13, 6]]
    shown = tuple(number for _, own in rows for number in own)
    pixels = pixels_of(made, tiny_world, shown)
    assert pixels is not None
    before = read(made.model, [ids for ids, _ in rows], {"pixel_values": pixels})
    assert before.divides
    # Rows in another order, and one of them twice.
    order = [2, 0, 1, 0]
    found = read_on(made.model, [answers[row] for row in order], before.of(order))
    made.model.model.language_model.set_attn_implementation("eager")
    reference = ByMasks(made.model)
    for place, row in enumerate(order):
        ids, own = rows[row]
        whole = [*ids, *answers[row]]
        expected = reference.logits(whole, len(ids), pixels_of(made, tiny_world, own))
        close(found[place, : len(answers[row])], expected[len(ids) :])


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_dropped_tokens_are_in_no_layer_and_no_cache(tiny_world, llms, case):
    """Lengths of states and caches, layer by layer, are the schedule's; also as answers grow."""
    made = built(tiny_world, llms["llama"], case)
    seen: list[int] = []
    handles = [
        layer.mlp.register_forward_hook(lambda _, args, out: seen.append(out.shape[1]))
        for layer in made.model.model.language_model.layers
    ]
    ids, shown = rows_of(made)[1]
    cache = DynamicCache(config=made.model.config)
    pixels = pixels_of(made, tiny_world, shown)
    out = made.model(input_ids=torch.tensor([ids]), pixel_values=pixels, past_key_values=cache)
    schedule = schedule_of(made)
    by_layer = [tokens for layers, tokens in schedule.stages for _ in range(layers)]
    text = len(ids) - 2 * N
    expected = [text + 2 * tokens for tokens in by_layer]
    assert seen == expected
    assert lengths(cache) == expected
    assert sum(by_layer) / LAYERS == pytest.approx(schedule.mean)
    seen.clear()
    for step in range(1, 4):
        token = out.logits[:, -1:].argmax(-1)
        out = made.model(input_ids=token, past_key_values=cache)
        assert lengths(cache) == [n + step for n in expected]
    assert set(seen) == {1}
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", ["fastv", "pyramiddrop"])
@torch.no_grad()
def test_with_every_token_kept_it_is_the_plain_model(tiny_world, llms, name):
    """Bit for bit, hooks and all: of a share of 1, and of an average of every patch."""
    plain = assemble(tiny_world.encoder, llms["qwen"], "mlp", seed=2)
    for settings in ({"ratio": 1.0}, {"average": N}):
        made = assemble(tiny_world.encoder, llms["qwen"], name, settings=settings, seed=2)
        inputs = padded(made, tiny_world)
        expected = plain.model.eval()(**inputs).logits
        assert torch.equal(made.model.eval()(**inputs).logits, expected)


@pytest.mark.parametrize("case", ["fastv", "pyramiddrop", "packed"])
@torch.no_grad()
def test_a_dialogue_goes_on_behind_a_pruned_cache(tiny_world, llms, case):
    """A second image in a later pass over the cache: pruned by that pass's last token, in turn."""
    made = built(tiny_world, llms["qwen"], case)
    image = [made.processor.image_token_id] * N
    first, second = [7, *image, 9, 11], [5, *image, 6, 13]
    pixels = [pixels_of(made, tiny_world, (number,)) for number in (0, 1)]
    cache = DynamicCache(config=made.model.config)
    made.model(input_ids=torch.tensor([first]), pixel_values=pixels[0], past_key_values=cache)
    made.model(input_ids=torch.tensor([second]), pixel_values=pixels[1], past_key_values=cache)
    schedule = schedule_of(made)
    by_layer = [tokens for layers, tokens in schedule.stages for _ in range(layers)]
    assert lengths(cache) == [7 - 1 + 2 * n for n in by_layer]
    # The rows of a cache may be taken apart and repeated, what is padding with them.
    cache.batch_repeat_interleave(2)
    cache.reorder_cache(cast("torch.LongTensor", torch.tensor([1, 0])))
    deep = cache.layers[-1]
    assert isinstance(deep, PrunedLayer)
    assert deep.valid.shape == (2, lengths(cache)[-1])
    cache.crop(-2)
    assert deep.valid.shape == (2, lengths(cache)[-1])


def other_llm(tiny_world: TinyWorld, kind: str, **more: Any) -> Llm:
    """An LLM of another family, random, with the tiny Llama's tokenizer."""
    own = load_llm(tiny_world.llama, torch.float32)
    config = AutoConfig.for_model(
        kind, hidden_size=48, intermediate_size=96, num_hidden_layers=LAYERS, head_dim=12,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, initializer_range=0.2,
        vocab_size=own.model.config.vocab_size, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    return Llm(own.source, AutoModelForCausalLM.from_config(config).eval(), own.tokenizer)


@pytest.mark.parametrize(("kind", "name"), [("qwen3", "fastv"), ("phi3", "pyramiddrop")])
@torch.no_grad()
def test_norms_of_queries_and_fused_projections_are_the_layers_own(tiny_world, kind, name):
    llm = other_llm(tiny_world, kind)
    made = assemble(tiny_world.encoder, llm, name, settings={"average": 20})
    found = made.model.eval()(**padded(made, tiny_world)).logits[:, -1]
    made.model.model.language_model.set_attn_implementation("eager")
    reference = ByMasks(made.model)
    for number, (ids, shown) in enumerate(rows_of(made)):
        alone = reference.logits(ids, len(ids), pixels_of(made, tiny_world, shown))[-1]
        close(found[number], alone)


@torch.no_grad()
def test_layers_of_another_build_are_refused(tiny_world):
    """OLMo 2 has no norm before its attention."""
    made = assemble(tiny_world.encoder, other_llm(tiny_world, "olmo2"), "fastv")
    with pytest.raises(InputError, match="type Olmo2DecoderLayer cannot be asked what a token"):
        made.model(**padded(made, tiny_world))


def test_an_llm_with_windows_is_refused(tiny_world, llms, tmp_path):
    shutil.copytree(llms["qwen"], tmp_path / "windowed")
    file = tmp_path / "windowed" / "config.json"
    config = json.loads(file.read_text())
    config |= {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}
    config.pop("layer_types", None)
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match="qwen2 has layers of full_attention, sliding_attention"):
        assemble(tiny_world.encoder, tmp_path / "windowed", "fastv")


@torch.no_grad()
def test_passes_that_cannot_be_pruned_are_refused(tiny_world, llms):
    made = built(tiny_world, llms["qwen"], "fastv")
    ids, shown = rows_of(made)[0]
    pixels = pixels_of(made, tiny_world, shown)
    with pytest.raises(ValueError, match="input_ids say where images are"):
        made.model(inputs_embeds=torch.zeros(1, 3, 48))
    pairs = torch.zeros(1, 1, len(ids), len(ids))
    with pytest.raises(ValueError, match="not of pairs"):
        made.model(input_ids=torch.tensor([ids]), pixel_values=pixels, attention_mask=pairs)
    for layer in made.model.model.language_model.layers:
        assert not layer._forward_pre_hooks
