"""TokenPacker and QueCC against the published way of computing them: times, FLOPs and peak memory.

    python benchmarks/compressors.py

CLIP ViT-L/14-336's patches (576 of 1024 numbers, four levels) for an LLM 2048 wide, batch 4, fp32,
random weights, one thread. `published`: every patch projected to a key and a value, windows folded
into the batch, torch's nn.MultiheadAttention, as the papers' code is described. `products`: the
matrix products of ours alone (their backward pass makes gradients that ours does not need). CPU
seconds, the best of `--repeat`, arms in turns. Results must agree to 1e-4.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

WIDTH, TEXT, SIDE, BATCH, LEVELS = 1024, 2048, 24, 4, (12, 16, 22, 23)
NAMES, TOKENS = ("tokenpacker", "quecc"), (1, 16, 144, 576)
# Memory that is given back at once does not hide the next arm's.
ALONE = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}


def main() -> None:
    """Run every arm and print a table; ratios are to the published way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        print(json.dumps(one(*json.loads(arguments.arm))))
        return
    print("| compressor | V | how | GFLOP | forward s | x | and backward s | x | peak MB | x |")
    print("|---" * 10 + "|")
    for name in NAMES:
        for tokens in TOKENS:
            found = in_process((name, tokens, arguments.repeat))
            for arm, (forward, both, peak, gflop) in found.items():
                first = found["published"]
                cells = (
                    *(name, tokens, arm, f"{gflop:.1f}"),
                    *(f"{forward:.3f}", f"{first[0] / forward:.2f}"),
                    *(f"{both:.3f}", f"{first[1] / both:.2f}"),
                    *(f"{peak / 1e6:,.0f}", f"{peak / first[2]:.2f}"),
                )
                print(f"| {' | '.join(map(str, cells))} |", flush=True)


def in_process(case: tuple) -> dict[str, list[float]]:
    """What `one` gives, from a process of its own."""
    command = [sys.executable, __file__, "--arm", json.dumps(case)]
    done = subprocess.run(command, check=True, capture_output=True, env={**os.environ, **ALONE})
    return json.loads(done.stdout.splitlines()[-1])


def one(name: str, tokens: int, repeat: int) -> dict[str, list[float]]:
    """CPU seconds forward, and with backward, peak bytes above the start, GFLOP; of each arm."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from vtc.compress.interface import VisionFeatures
    from vtc.compress.registry import build

    torch.manual_seed(0)
    made = build(
        name, vision_width=WIDTH, text_width=TEXT, depth=24, grid=(SIDE, SIDE),
        visual_tokens=tokens,
    )  # fmt: skip
    levels = {level: torch.randn(BATCH, SIDE * SIDE, WIDTH) for level in LEVELS}
    asked = torch.randn(BATCH, TEXT)

    def ours():
        return made(VisionFeatures(levels, (SIDE, SIDE), asked if made.needs_query else None))

    works = {"published": published(made, levels, asked), "vtc": ours, "products": products(ours)}
    found = {arm: [math.inf, math.inf, 0.0, 0.0] for arm in works}
    with torch.no_grad():
        torch.testing.assert_close(ours(), works["published"](), rtol=1e-4, atol=1e-4)
        for arm, work in works.items():
            with FlopCounterMode(display=False) as counter:
                work()
            found[arm][3] = counter.get_total_flops() / BATCH / 1e9
    for _ in range(repeat):  # In turns: the machine's other work then slows all alike.
        for arm, work in works.items():
            with torch.no_grad():
                found[arm][0] = min(found[arm][0], seconds(work))
            made.zero_grad()
            Path("/proc/self/clear_refs").write_text("5")
            start = memory("VmRSS:")
            found[arm][1] = min(found[arm][1], seconds(lambda work=work: work().sum().backward()))
            found[arm][2] = max(found[arm][2], memory("VmHWM:") - start)
    return found


def seconds(work) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def memory(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def published(made, levels: dict, asked):
    """The same weights the published way; a function of nothing."""
    import torch
    from torch import nn

    count = math.isqrt(made.visual_tokens)
    size = SIDE // count
    attention = nn.MultiheadAttention(WIDTH, 8, batch_first=True)
    quecc = made.needs_query
    with torch.no_grad():
        if quecc:
            attention.load_state_dict(made.attention.state_dict())
        else:
            three = (made.attn_query, made.attn_key, made.attn_value)
            attention.in_proj_weight.copy_(torch.cat([part.weight for part in three]))
            attention.in_proj_bias.copy_(torch.cat([part.bias for part in three]))
            attention.out_proj.load_state_dict(made.attn_out.state_dict())

    def fold(patches):
        grid = patches.view(BATCH, count, size, count, size, WIDTH).permute(0, 1, 3, 2, 4, 5)
        return grid.reshape(BATCH * count * count, size * size, WIDTH)

    def queries():
        if not quecc:
            return made.query_norm(made.query_proj(made._reduce(levels[23], made.visual_tokens)))
        told = levels[23] + made.text_norm(made.text_proj(asked))[:, None]
        image = made.query_norm(made.query_proj(told)).transpose(1, 2).unflatten(2, (SIDE, SIDE))
        return made.downsample(image).flatten(2).transpose(1, 2)

    def work():
        fine = torch.cat([levels[level] for level in LEVELS], -1)
        keys, values = made.key_norm(made.key_proj(fine)), made.value_norm(made.value_proj(fine))
        query = queries().reshape(-1, 1, WIDTH)
        found = attention(query, fold(keys), fold(values), need_weights=False)[0]
        return made.out_proj(found.reshape(BATCH, -1, WIDTH))

    return work


def products(work):
    """The matrix products that `work` makes, of random numbers, and nothing else."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    kinds = {"addmm": 3, "mm": 2, "bmm": 2}
    seen: list[tuple[str, list[tuple[int, ...]]]] = []

    class Noted(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, given=(), named=None):
            name = function.__name__.split(".")[0]
            if name in kinds:
                seen.append((name, [tuple(part.shape) for part in given[: kinds[name]]]))
            return function(*given, **(named or {}))

    with torch.no_grad(), Noted():
        work()
    parts = [
        (name, [torch.randn(shape, requires_grad=True) for shape in all_]) for name, all_ in seen
    ]

    def run():
        made = [getattr(torch, name)(*given) for name, given in parts]
        return torch.stack([part.sum() for part in made])

    return run


if __name__ == "__main__":
    main()
