"""What an inference takes: generation as torch counts it, compressors as they say themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Gemma3TextConfig, Qwen2Config

from vtc.catalog import encoders, gpus, llms
from vtc.catalog.shapes import EncoderShape, llm_from_config
from vtc.commands.stating import stated_of
from vtc.compress.choices import KNOWN
from vtc.compress.statement import statement
from vtc.cost.compressor import _FORMULAS, stated
from vtc.cost.encoder import encoder_flops
from vtc.cost.inference import (
    Compressing,
    Service,
    memory,
    read_bytes,
    stored_bytes,
    work,
)
from vtc.cost.llm import attention_flops, decode_flops, kv_bytes, prefill_flops
from vtc.cost.roofline import Machine, machine, spent

SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 6,
    "intermediate_size": 96,
    "vocab_size": 500,
}
MODELS = {
    "qwen2": Qwen2Config(**SIZES),
    # Five of six layers see a window of 8 tokens.
    "gemma3": Gemma3TextConfig(**SIZES, head_dim=32, sliding_window=8),
}
CLIP = encoders.shape("openai/clip-vit-large-patch14-336")


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_generation_is_what_torch_counts(config):
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    shape = llm_from_config(config.to_dict(), "llm")
    ids = torch.ones(1, 20, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model.generate(ids, max_new_tokens=7, min_new_tokens=7, do_sample=False)
    assert counter.get_total_flops() == prefill_flops(shape, 20) + decode_flops(shape, 7, 20)


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_the_cache_is_as_large_as_said(config):
    model = AutoModelForCausalLM.from_config(config)
    shape = llm_from_config(config.to_dict(), "llm")
    cache = model(torch.ones(1, 20, dtype=torch.long), use_cache=True).past_key_values
    held = sum(
        tensor.numel() * tensor.element_size()
        for layer in cache.layers
        for tensor in (layer.keys, layer.values)
    )
    # transformers has dropped already what the next token pushes out of the window.
    dropped = 2 * shape.n_windowed * shape.n_kv_heads * shape.head_dim * 4
    assert held == kv_bytes(shape, 20, 4) - dropped


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 40))
def test_windows_leave_out_what_lies_behind_them(tokens, cached, window):
    plain = llms.shape("Qwen2.5-0.5B")
    windowed = type(plain)(**{**vars(plain), "window": window, "n_windowed": plain.n_layers})
    pairs = sum(min(cached + number, window) for number in range(1, tokens + 1))
    flops = attention_flops(windowed, tokens, cached=cached, attention="causal")
    assert flops == 4 * pairs * plain.n_layers * plain.n_heads * plain.head_dim


def test_known_cache_bytes():
    # KiB a token in bf16.
    known = {"Qwen1.5-7B": 512, "Qwen2.5-7B": 56, "Qwen3-8B": 144, "SmolLM2-135M": 22.5}
    for name, kib in known.items():
        assert kv_bytes(llms.shape(name), 1) == kib * 1024
        assert kv_bytes(llms.shape(name), 10, 0.5) == 2.5 * kib * 1024
    gemma = llms.shape("Gemma-3-1B")
    # 26 KiB a token as long as all layers see everything, then 4 of 26 layers alone.
    assert kv_bytes(gemma, 512) == 512 * 26 * 1024
    assert kv_bytes(gemma, 513) - kv_bytes(gemma, 512) == 4 * 1024


ODD = EncoderShape(6, 48, 4, 96, 48, 8, True, 1)


@pytest.mark.parametrize("name", _FORMULAS)
@pytest.mark.parametrize("encoder", [CLIP, encoders.shape("siglip-so400m-patch14-384"), ODD])
def test_compressors_cost_what_they_say_themselves(name, encoder):
    choices = KNOWN[name].supported(encoder.grid)
    for tokens in {choices[0], choices[len(choices) // 2], choices[-1]}:
        said = statement(
            name,
            vision_width=encoder.hidden_size,
            text_width=96,
            depth=encoder.n_layers,
            grid=encoder.grid,
            visual_tokens=tokens,
        )
        own = (said.n_params, said.flops, max(said.levels), len(said.levels), said.needs_query)
        assert stated(name, encoder, 96, tokens)[:5] == own
        if KNOWN[name].schedule is None:
            whole = stated_of(name, encoder, 96, tokens)
            assert whole == (*own, said.patches_left, said.text_flops)
            assert bool(whole.patches_left) == (name == "tome")


@pytest.mark.parametrize(
    ("name", "settings"),
    [("tome", {"reference_behaviour": True}), ("tome", {"level": 3}),
     ("tokenpacker", {"key_levels": [2, 5]}),
     ("llava-mini", None), ("mqt", {"trained": [1, 4]}), ("prumerge", None)],
)  # fmt: skip
def test_settings_and_what_has_no_formula_are_asked_of_the_class(name, settings):
    said = statement(
        name,
        vision_width=ODD.hidden_size,
        text_width=96,
        depth=ODD.n_layers,
        grid=ODD.grid,
        visual_tokens=4,
        settings=settings,
    )
    found = stated_of(name, ODD, 96, 4, settings)
    own = (said.n_params, said.flops, max(said.levels), len(said.levels), said.needs_query)
    assert found == (*own, said.patches_left, said.text_flops)
    assert any(found.text_flops) == (name == "llava-mini")


def tokenpacker(llm, v):
    cost = stated("tokenpacker", CLIP, llm.hidden_size, v)
    return Compressing(cost.n_params, cost.flops, cost.level, cost.levels)


def test_the_work_of_an_inference_is_the_sum_of_its_parts():
    llm, service = llms.shape("Qwen1.5-7B"), Service(50, generated_tokens=8, batch=4)
    compressor = tokenpacker(llm, 16)
    parts = work(llm, CLIP, compressor, 16, service)
    assert parts["encoder"].flops == encoder_flops(CLIP, 23) == pytest.approx(366.0e9, rel=1e-3)
    assert parts["compressor"].flops == compressor.flops
    assert parts["prefill"].flops == prefill_flops(llm, 66, attention="causal")
    assert parts["decode"].flops == decode_flops(llm, 8, 66)
    # Seven passes over the weights, and the cache of four rows behind 67 to 73 tokens.
    cache = 4 * sum(kv_bytes(llm, context) for context in range(67, 74))
    assert parts["decode"].bytes == pytest.approx(7 * read_bytes(llm, "bf16") + cache)
    assert parts["prefill"].bytes == read_bytes(llm, "bf16") + 4 * kv_bytes(llm, 66)


def test_the_question_is_read_by_the_llm_only_where_it_must_be():
    llm = llms.shape("Vicuna-7B-v1.5")
    cost = Compressing(*stated("quecc", CLIP, llm.hidden_size, 1)[:5])
    asked = work(llm, CLIP, cost, 1, Service(20))["compressor"]
    known = work(llm, CLIP, cost, 1, Service(20, question_known=True))["compressor"]
    # 264 GFLOP with the head at all 20 positions, which nobody needs.
    everywhere = 2.0 * llm.n_head * 20
    assert asked.flops - known.flops + everywhere == pytest.approx(264e9, rel=0.005)
    assert known.flops == cost.flops
    assert work(llm, CLIP, cost, 1, Service(0, 20))["compressor"].flops == cost.flops


def test_arrays_give_what_numbers_give():
    llm, service = llms.shape("Gemma-3-1B"), Service(700, 300, 40, 2, 3, "nf4", "int8")
    tokens = np.array([1, 16, 144, 576])
    every = [tokenpacker(llm, int(v)) for v in tokens]
    columns = Compressing(
        np.array([c.n_params for c in every]), np.array([c.flops for c in every]), 23, 4
    )
    together = work(llm, CLIP, columns, tokens, service)
    held = memory(llm, CLIP, columns, tokens, service)
    for index, v in enumerate(tokens):
        alone = work(llm, CLIP, every[index], int(v), service)
        for phase, part in alone.items():
            assert together[phase].flops[index] == pytest.approx(part.flops, rel=1e-12)
            assert together[phase].bytes[index] == pytest.approx(part.bytes, rel=1e-12)
        peak = memory(llm, CLIP, every[index], int(v), service).peak
        assert held.peak[index] == pytest.approx(peak, rel=1e-12)


def test_weights_take_what_their_types_say():
    llm = llms.shape("Qwen1.5-7B")
    assert stored_bytes(llm, "bf16") == 2 * llm.n_params
    # Embedding and head, 1.2 billion parameters, stay in bf16.
    others = 2 * (llm.n_params - llm.n_matmul)
    assert (stored_bytes(llm, "int8") - others) / llm.n_matmul == pytest.approx(1, rel=2e-3)
    assert (stored_bytes(llm, "nf4") - others) / llm.n_matmul == pytest.approx(0.516, rel=2e-3)
    assert read_bytes(llm, "bf16") == 2 * (llm.n_params - llm.n_head)


@settings(deadline=None)
@given(
    st.sampled_from(llms.catalog()),
    st.sampled_from([1, 16, 144, 576]),
    st.integers(0, 500),
    st.integers(1, 64),
)
def test_memory_and_time_grow_with_what_is_asked(llm, v, text, batch):
    shape = llm.shape
    compressor, rtx = tokenpacker(shape, v), machine(gpus.find("rtx4090"))
    few, many = Service(text, batch=batch), Service(text + 100, generated_tokens=9, batch=batch + 1)
    smaller, larger = (memory(shape, CLIP, compressor, v, s) for s in (few, many))
    assert smaller.weights == larger.weights
    assert 0 < smaller.kv < larger.kv
    assert smaller.peak < larger.peak
    times = [
        sum(spent(part, service.batch, rtx).seconds for part in parts.values())
        for service in (few, many)
        for parts in [work(shape, CLIP, compressor, v, service)]
    ]
    assert 0 < times[0] < times[1]


@pytest.mark.parametrize(
    ("gpu", "tokens"),
    [("rtx3090", 76), ("rtx5090", 117), ("a100-80gb", 153), ("rtx4090", 164), ("h200", 206),
     ("h100", 295), ("l4", 403), ("l40s", 419)],
)  # fmt: skip
def test_known_ridges(gpu, tokens):
    peak = machine(gpus.find(gpu), 1, 1)
    assert peak.ridge_tokens() == pytest.approx(tokens, abs=0.51)
    assert peak.ridge_tokens(0.5) == pytest.approx(tokens / 4, abs=0.2)


def test_a_phase_takes_the_longer_of_its_two_times():
    slow = Machine(1e12, 1e9)
    parts = work(
        llms.shape("Qwen1.5-0.5B"), None, Compressing(0, 0), np.array([1, 576]), Service(0)
    )
    time = spent(parts["prefill"], 1, slow)
    assert list(time.compute) == [False, False]
    assert time.seconds[0] == parts["prefill"].bytes[0] / 1e9
    assert list(spent(parts["prefill"], 1, Machine(1e9, 1e12)).compute) == [True, True]
    assert parts["encoder"].flops[0] == 0
