"""Schedules of dropped tokens, and their costs: what torch counts, and what a cache holds."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import TinyWorld
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from vtc.catalog import encoders, llms
from vtc.catalog.shapes import llm_from_config
from vtc.commands.dropping import dropping_of
from vtc.compress import pruning
from vtc.compress.pruning import averages, schedule_of
from vtc.cost import dropping as pruned
from vtc.cost.compressor import stated
from vtc.cost.inference import Compressing, Service, memory, work
from vtc.errors import InputError
from vtc.model.assemble import assemble
from vtc.model.backbones import Llm, load_llm

N = 36
LAYERS = 6
MAKES = {"fastv": pruning.fastv, "pyramiddrop": pruning.pyramiddrop}


@st.composite
def wishes(draw):
    """A compressor, layers, patches, settings, and which of the averages that they allow."""
    name = draw(st.sampled_from(sorted(MAKES)))
    n_layers, n_tokens = draw(st.integers(2, 48)), draw(st.integers(1, 600))
    key = "layer" if name == "fastv" else "stages"
    most = n_layers - 1 if name == "fastv" else min(n_layers, 8)
    number = draw(st.integers(min(2, most), most))
    settings = {key: number} if draw(st.booleans()) else {}
    return name, n_layers, n_tokens, settings, draw(st.floats(0, 1))


@given(wishes())
def test_an_average_is_kept_and_no_token_more_would_keep_it(wish):
    """Never above what is asked; exact sums; fewer from layer to layer; as many as possible."""
    name, n_layers, n_tokens, settings, place = wish
    own = averages(MAKES[name], n_layers, n_tokens, settings)
    average = own[round(place * (len(own) - 1))]
    found = schedule_of(MAKES[name], n_layers, n_tokens, {**settings, "average": average})
    assert sum(layers for layers, _ in found.stages) == n_layers == len(found.by_layer)
    assert found.by_layer == tuple(sorted(found.by_layer, reverse=True))
    assert found.mean == sum(found.by_layer) / n_layers <= average
    assert found.stages[0][1] == n_tokens
    assert all(before > behind for (_, before), (_, behind) in zip(
        found.stages, found.stages[1:], strict=False))  # fmt: skip
    if average == n_tokens:
        assert found.drops == ()
    elif name == "fastv":
        deep = n_layers - found.drops[0].layer
        assert found.mean + deep / n_layers > average
    else:
        n = settings.get("stages") or min(4, n_layers)
        ends = [s * n_layers // n for s in range(1, n)]
        counts = [found.by_layer[end] for end in ends]
        # The next larger share keeps one token more behind some stage.
        shares = [((c + 1) / n_tokens) ** (1 / s) for s, c in enumerate(counts, 1) if c < n_tokens]
        more = schedule_of(MAKES[name], n_layers, n_tokens, {**settings, "ratio": min(shares)})
        assert more.mean > average


def test_published_schedules():
    """FastV's K = 2, R = 50 %; PyramidDrop's 8, 16, 24 and halves; the facts' smallest averages."""
    assert pruning.fastv(32, 576).stages == ((2, 576), (30, 288))
    assert pruning.pyramiddrop(32, 576).stages == ((8, 576), (8, 288), (8, 144), (8, 72))
    assert averages(pruning.fastv, 32, 576)[0] == 36
    assert averages(pruning.fastv, 32, 576, {"layer": 3})[0] == 54
    assert pruning.fastv(32, 576, average=64).by_layer == (576,) * 2 + (29,) * 30
    assert pruning.fastv(32, 576, layer=3, average=54).kept == 0


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("fastv", {"average": 35}, "the first 2 of 32 layers have all 576; choose from 36 to 576"),
        ("fastv", {"average": 577}, "choose from 36 to 576"),
        ("fastv", {"layer": 32}, "layer = 32; an LLM of 32 layers can drop tokens behind layer 1"),
        ("fastv", {"ratio": 1.5}, "ratio = 1.5 is no share"),
        ("fastv", {"average": 64, "ratio": 0.5}, "give one"),
        ("pyramiddrop", {"average": 100}, "choose from 144 to 576"),
        ("pyramiddrop", {"stages": 1}, "an LLM of 32 layers has 2 to 32"),
    ],
)
def test_what_cannot_be_is_refused(name, settings, says):
    with pytest.raises(InputError, match=says):
        schedule_of(MAKES[name], 32, 576, settings)


@pytest.fixture(scope="module")
def llm(tiny_world: TinyWorld) -> Llm:
    """A Llama of six layers and grouped queries."""
    own = load_llm(tiny_world.llama, torch.float32)
    shape = own.model.config.to_dict() | {"num_hidden_layers": LAYERS, "layer_types": None}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**shape))
    return Llm(own.source, model.eval(), own.tokenizer)


@pytest.mark.parametrize("name", sorted(MAKES))
@pytest.mark.parametrize("images", [1, 2])
@torch.no_grad()
def test_costs_are_what_torch_counts_and_what_the_cache_holds(tiny_world, llm, name, images):
    made = assemble(tiny_world.encoder, llm, name, settings={"average": 20})
    model, text = made.model.eval(), 9
    model.model.language_model.set_attn_implementation("eager")
    ids = torch.tensor(
        [[7] * 3 + [made.processor.image_token_id] * (N * images) + [8] * (text - 3)]
    )
    shape = llm_from_config(llm.model.config.to_dict(), "llm")
    dropping = dropping_of(name, shape, N, None, {"average": 20})
    states = model.model.encode(torch.rand(images, 3, 48, 48))
    cache = DynamicCache(config=model.config)

    def counted(**inputs):
        with FlopCounterMode(display=False) as counter:
            model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return counter.get_total_flops()

    prefill = counted(input_ids=ids, vision_levels=states)
    own = pruned.prefill_flops(shape, dropping, text, images)
    assert prefill == own + images * made.model.compressor.flops()
    layers: Any = cache.layers
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    assert held == pruned.kv_bytes(shape, dropping, text, images, element=4)
    decode = sum(counted(input_ids=torch.tensor([[5]])) for _ in range(3))
    assert decode == pruned.decode_flops(shape, dropping, 4, text, images)


def test_served_costs_count_every_layer_for_what_it_has():
    """Arrays over V are the numbers one by one; at V = N nothing is dropped or chosen."""
    llm, clip = llms.shape("Qwen1.5-0.5B"), encoders.shape("openai/clip-vit-large-patch14-336")
    asked, service = (64, 200, 576), Service(50, 20, 5, images=2, batch=3)
    for name in MAKES:
        v = asked[1:] if name == "pyramiddrop" else asked
        cost: Any = [stated(name, clip, llm.hidden_size, n) for n in v]
        assert all(one.flops == cost[0].flops for one in cost)
        flops = np.array([one.flops for one in cost], dtype=float)
        each = Compressing(cost[0].n_params, flops, cost[0].level)
        whole = each._replace(dropping=dropping_of(name, llm, clip.n_patches, v))
        works = work(llm, clip, whole, np.array(v, dtype=float), service)
        plain = work(llm, clip, each, np.array(v, dtype=float), service)
        for place, number in enumerate(v):
            alone = Compressing(cost[0].n_params, flops[place], cost[0].level)
            alone = alone._replace(dropping=dropping_of(name, llm, clip.n_patches, [number]))
            found = work(llm, clip, alone, float(number), service)
            for phase, part in found.items():
                assert np.ravel(part.flops)[0] == pytest.approx(np.ravel(works[phase].flops)[place])
        for phase in ("prefill", "decode"):
            assert works[phase].flops[-1] == plain[phase].flops[-1]
            assert works[phase].bytes[-1] == plain[phase].bytes[-1]
        held = memory(llm, clip, whole, np.array(v, dtype=float), service)
        assert held.kv[0] < held.kv[-1]
        # All tokens are in the first layer at once.
        assert held.activations[0] == held.activations[-1]
