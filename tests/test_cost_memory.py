"""The memory arithmetic against what autograd really keeps, and how its parts must move."""

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config, Qwen2Model
from transformers.models.llama.modeling_llama import LlamaModel

from vtc.catalog import encoders, llms
from vtc.catalog.shapes import llm_from_config
from vtc.compress.interface import VisionFeatures
from vtc.compress.registry import build
from vtc.compress.statement import statement
from vtc.cost import memory as costs
from vtc.cost.memory import CompressorCost, Setup, StepShape, training_memory
from vtc.model import head_loss

ROWS, TOKENS = 2, 24
SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
}


def kept(model, work) -> int:
    """Bytes of the distinct tensors that autograd keeps of `work`, weights aside."""
    own = {w.untyped_storage()._cdata for w in [*model.parameters(), *model.buffers()]}
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return sum(storage.nbytes() for storage in found.values())


def a_layer(kind, config, dtype, prepare) -> float:
    """Bytes kept a token by one layer: three layers less two."""
    totals = []
    for n_layers in (2, 3):
        config.num_hidden_layers = n_layers
        model = prepare(kind(config).to(dtype).train())
        inputs = torch.randn(ROWS, TOKENS, 64, dtype=dtype, requires_grad=True)
        totals.append(kept(model, lambda m=model, x=inputs: m(inputs_embeds=x, use_cache=False)))
    return (totals[1] - totals[0]) / (ROWS * TOKENS)


def with_lora(model):
    from peft import LoraConfig, get_peft_model

    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return get_peft_model(model, LoraConfig(r=4, lora_dropout=0.05, target_modules=names))


@pytest.mark.parametrize(("kind", "config"), [(Qwen2Model, Qwen2Config), (LlamaModel, LlamaConfig)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("trains", ["nothing", "full"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_layer_keeps_what_the_arithmetic_says(kind, config, precision, trains, attention):
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    config = config(**SIZES)
    config._attn_implementation = attention
    found = a_layer(kind, config, dtype, lambda model: model.requires_grad_(trains == "full"))
    shape = llm_from_config(config.to_dict(), "llm")
    setup = Setup(trains, precision, eager=attention == "eager", gpu=False)
    assert found == costs._layer_bytes(shape, setup, TOKENS)


def test_a_layer_with_lora_keeps_what_the_arithmetic_says():
    config = Qwen2Config(**SIZES)
    found = a_layer(Qwen2Model, config, torch.float32, with_lora)
    setup = Setup("lora", "fp32", lora_rank=4, lora_dropout=0.05, gpu=False)
    assert found == costs._layer_bytes(llm_from_config(config.to_dict(), "llm"), setup, TOKENS)


@pytest.mark.parametrize(
    ("name", "visual_tokens"), [("mlp", 36), ("avgpool", 4), ("tokenpacker", 9), ("quecc", 9)]
)
def test_a_compressor_states_what_it_is(name, visual_tokens):
    shape = {"vision_width": 32, "text_width": 48, "depth": 4, "grid": (6, 6)}
    stated = statement(name, **shape, visual_tokens=visual_tokens)
    real = build(name, **shape, visual_tokens=visual_tokens)
    features = VisionFeatures(
        {level: torch.randn(1, 36, 32) for level in real.request.levels},
        (6, 6),
        torch.randn(1, 48) if real.needs_query else None,
    )
    assert stated.n_params == sum(weight.numel() for weight in real.parameters())
    assert (stated.flops, stated.levels) == (real.flops(), real.request.levels)
    assert stated.saved_bytes == kept(real, lambda: real(features))


LLM = llms.shape("Qwen1.5-7B")
CLIP = encoders.shape("clip-vit-large-patch14-336")
PACKER = CompressorCost(36_722_688, 15 * 10**9, 33 * 10**6, (12, 16, 22, 23))
STEP = StepShape(rows=4, tokens=832, supervised=128, images=4)


def peak(**changes) -> int:
    setup = replace(Setup("lora", lora_rank=128), **changes)
    return training_memory(LLM, CLIP, PACKER, setup, STEP).peak


def test_what_saves_memory_saves_it():
    assert peak(checkpointing=True) < 0.7 * peak()
    saved = peak(four_bit=False) - peak(four_bit=True)
    # 4 bits in place of 16 on the blocks' weights, and the allocator's share of it.
    assert saved == pytest.approx(1.05 * LLM.n_matmul * (2 - costs.NF4_BYTES), rel=1e-3)
    full = {"trains": "full", "checkpointing": True}
    assert peak(**full, optimizer="adamw-8bit") < peak(**full)
    assert peak(**full, optimizer="paged-adamw-8bit") < peak(**full, optimizer="adamw-8bit")
    assert peak(**full, precision="bf16") < 0.6 * peak(**full)
    # Scores of every pair of tokens, of 32 heads and 32 layers.
    assert peak(eager=True) - peak() > 0.95 * 32 * 32 * 832 * 832 * 4 * 6


def test_full_finetuning_takes_eighteen_bytes_a_parameter():
    setup = Setup("full", checkpointing=True, gpu=False)
    held = training_memory(LLM, CLIP, PACKER, setup, STEP)
    states = held.weights + held.gradients + held.optimizer
    of_llm = states - 4 * CLIP.n_params - 16 * PACKER.n_params
    # Weight, gradient and two states in fp32, and autocast's copy of the matrices.
    assert of_llm == pytest.approx(18 * LLM.n_params, rel=0.01)


def test_stage_1_holds_states_of_the_compressors_alone():
    held = training_memory(LLM, CLIP, PACKER, Setup("nothing"), STEP, beside=PACKER.n_params)
    assert held.gradients == 4 * 2 * PACKER.n_params
    assert held.optimizer == 8 * 2 * PACKER.n_params


def of_positions(supervised: int, gpu=False) -> int:
    setup = Setup("nothing", checkpointing=True, gpu=gpu)
    step = StepShape(rows=1, tokens=1, supervised=supervised, images=0)
    # What a layer holds comes in another moment than the loss.
    thin = replace(LLM, n_layers=1, intermediate_size=16, hidden_size=16)
    return training_memory(thin, CLIP, PACKER, setup, step).activations


def test_few_logits_cost_twelve_bytes_and_many_a_chunk():
    vocabulary = LLM.vocab_size
    few = costs._MANY_LOGITS // vocabulary
    assert of_positions(few) - of_positions(few // 2) == 12 * vocabulary * (few - few // 2)
    # Logits and log-softmax of the rows of a chunk, however many positions there are.
    chunk = 48 * 2**20 // (4 * vocabulary)
    assert of_positions(10 * chunk) == of_positions(20 * chunk)
    assert of_positions(few) < of_positions(chunk) <= of_positions(10 * chunk)
    assert of_positions(20_000, gpu=True) > 2 * of_positions(20_000)


def test_the_chunks_are_those_of_the_loss():
    assert (costs._MANY_LOGITS, costs._CHUNK_BYTES) == (head_loss._WORTH_IT, head_loss._CHUNK_BYTES)
