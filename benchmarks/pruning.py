"""What tokens dropped inside the LLM spare: CPU seconds and FLOPs of a prefill and of a step.

    python benchmarks/pruning.py [--layers 24] [--width 512] [--repeats 5]

A Qwen2 of random weights, 576 patches and 50 text tokens, fp32, one thread, batch 1; the encoder's
pass is left out. The least CPU time of the repeats counts, models taking turns, so that what else
the machine does falls on all. FLOPs are those of `vtc.cost`, dense attention.
"""

import argparse
import time
from typing import Any

import torch
from transformers import CLIPVisionConfig, DynamicCache, Qwen2Config

from vtc.catalog.shapes import llm_from_config
from vtc.commands.dropping import dropping_of
from vtc.cost import dropping as pruned
from vtc.cost.llm import decode_flops, kv_bytes, prefill_flops
from vtc.model.config import VtcConfig
from vtc.model.modeling import VtcForConditionalGeneration

PATCHES, TEXT, IMAGE_TOKEN, STEPS = 576, 50, 1, 8
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("mlp", {}),
    "fastv, V = 288": ("fastv", {"average": 288}),
    "fastv, V = 64": ("fastv", {"average": 64}),
    "pyramiddrop, V = 270": ("pyramiddrop", {}),
    "pyramiddrop, V = 160": ("pyramiddrop", {"average": 160}),
}


def main() -> None:
    """Print a line a compressor, each beside mlp."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = Qwen2Config(
        hidden_size=options.width, intermediate_size=4 * options.width, vocab_size=1000,
        num_hidden_layers=options.layers, num_attention_heads=options.width // 64,
        num_key_value_heads=max(1, options.width // 256),
    )  # fmt: skip
    models = {case: model_of(text, *chosen) for case, chosen in CASES.items()}
    ids = torch.tensor([[5] * 10 + [IMAGE_TOKEN] * PATCHES + [7] * (TEXT - 10)])
    states = torch.randn(1, 1, PATCHES, 64)
    times: dict[str, list[tuple[float, float]]] = {case: [] for case in CASES}
    for _ in range(options.repeats + 1):
        for case, model in models.items():
            times[case].append(once(model, ids, states))
    shape = llm_from_config(text.to_dict(), "llm")
    base: tuple[float, ...] | None = None
    for case, (name, settings) in CASES.items():
        prefill, step = (min(part) for part in zip(*times[case][1:], strict=True))
        found = (prefill, step, *counted(name, settings, shape))
        base = base or found
        shares = " ".join(f"{own / whole:6.0%}" for own, whole in zip(found, base, strict=True))
        print(f"{case:<22} {prefill:6.3f} s {step * 1e3:6.2f} ms   {shares}")
    print(
        "of mlp's, from the left: prefill's seconds, a step's, prefill's FLOPs, a step's, KV bytes"
    )


def model_of(text: Qwen2Config, name: str, settings: dict[str, Any]) -> Any:
    """A model with these weights anew; the encoder is as small as it goes, and never run."""
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1,
        image_size=24 * 8, patch_size=8,
    )  # fmt: skip
    config = VtcConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN, compressor=name,
        compressor_settings=settings or None, visual_tokens=PATCHES,
    )  # fmt: skip
    return VtcForConditionalGeneration(config).eval()


@torch.inference_mode()
def once(model: Any, ids: torch.Tensor, states: torch.Tensor) -> tuple[float, float]:
    """CPU seconds of a prefill, and of a step behind it."""
    cache = DynamicCache(config=model.config)
    start = time.process_time()
    model(input_ids=ids, vision_levels=states, past_key_values=cache, logits_to_keep=1)
    middle = time.process_time()
    for _ in range(STEPS):
        model(input_ids=ids[:, -1:], past_key_values=cache, logits_to_keep=1)
    return middle - start, (time.process_time() - middle) / STEPS


def counted(name: str, settings: dict[str, Any], shape: Any) -> tuple[float, float, float]:
    """FLOPs of the prefill and of a step, bytes of the cache."""
    dropping = dropping_of(name, shape, PATCHES, None, settings)
    if dropping is None:
        whole = PATCHES + TEXT
        return prefill_flops(shape, whole), decode_flops(shape, 2, whole), kv_bytes(shape, whole)
    return (
        pruned.prefill_flops(shape, dropping, TEXT),
        pruned.decode_flops(shape, dropping, 2, TEXT),
        pruned.kv_bytes(shape, dropping, TEXT),
    )


if __name__ == "__main__":
    main()
