"""Compressors without training against the plain mlp: the encoder's pass and the compressor's.

    python benchmarks/training_free.py

A CLIP ViT-L/14-336 of random weights (1024 wide, 24 x 24 patches, `--layers` of its 24) and a
projector to an LLM 2048 wide, fp32, one thread; all arms have the same weights. CPU seconds a
batch, the least of `--repeat`, arms in turns; ratios are to the mlp's encoder and projector.
"""

import argparse
import math
import os
import time

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch.utils.flop_counter import FlopCounterMode

from vtc.catalog.shapes import EncoderShape, LlmShape
from vtc.model.config import VtcConfig
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.replacing import exchange_compressor
from vtc.model.shaped import random_model

NAMES, TOKENS, PATCHES = ("visionzip", "prumerge", "prumerge+", "divprune", "tome"), (64, 144), 576


def main() -> None:
    """Time every arm and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=6, help="of the encoder")
    parser.add_argument("--batch", type=int, default=4, help="images at a time")
    parser.add_argument("--repeat", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = made(arguments.layers)
    pixels = torch.randn(arguments.batch, 3, 336, 336)
    arms = [("mlp", PATCHES), *((name, tokens) for name in NAMES for tokens in TOKENS)]
    least = {arm: [math.inf, math.inf] for arm in arms}
    flops = {}
    with torch.inference_mode():
        for arm in arms:
            put(model, *arm)
            with FlopCounterMode(display=False) as counter:
                model.model.compress(model.model.encode(pixels))
            flops[arm] = counter.get_total_flops() / arguments.batch / 1e9
        for _ in range(arguments.repeat):  # In turns: other work then slows all alike.
            for arm in arms:
                put(model, *arm)
                least[arm] = [
                    min(pair) for pair in zip(least[arm], once(model, pixels), strict=True)
                ]
    print("| compressor | V | GFLOP an image | encoder s | x | compressor s | x | both, x |")
    print("|---" * 8 + "|")
    first = least[arms[0]]
    for arm, (encoder, compressor) in least.items():
        cells = (
            *arm,
            f"{flops[arm]:.1f}",
            *(f"{encoder:.3f}", f"{encoder / first[0]:.2f}"),
            *(f"{compressor:.3f}", f"{compressor / first[1]:.2f}"),
            f"{(encoder + compressor) / sum(first):.3f}",
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def made(n_layers: int) -> VtcForConditionalGeneration:
    """The encoder and the projector, beside an LLM of one small layer."""
    encoder = EncoderShape(
        n_layers=n_layers, hidden_size=1024, n_heads=16, intermediate_size=4096, image_size=336,
        patch_size=14, class_token=True, n_params=0,
    )  # fmt: skip
    llm = LlmShape(
        n_layers=1, hidden_size=2048, n_heads=16, n_kv_heads=2, head_dim=128,
        intermediate_size=64, vocab_size=32, tied=True,
    )  # fmt: skip
    return random_model(encoder, llm, "mlp", PATCHES, torch.float32, "cpu")


def put(model: VtcForConditionalGeneration, name: str, tokens: int) -> None:
    """Another compressor before the same projector."""
    config = VtcConfig.from_dict(
        {**model.config.to_dict(), "compressor": name, "visual_tokens": tokens}
    )
    exchange_compressor(model, config)


def once(model: VtcForConditionalGeneration, pixels: torch.Tensor) -> tuple[float, float]:
    """CPU seconds of the encoder's pass and of the compressor's."""
    start = time.process_time()
    levels = model.model.encode(pixels)
    middle = time.process_time()
    model.model.compress(levels)
    return middle - start, time.process_time() - middle


if __name__ == "__main__":
    main()
