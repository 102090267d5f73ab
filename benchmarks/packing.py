"""Packed batches against padded ones: samples a CPU second, and peak memory, of the same rows.

    python benchmarks/packing.py

Rows of very different lengths (their text is log-normal, 16 to 1,024 tokens behind 16 visual ones),
a random Qwen2, full finetuning in fp32 on one thread. Every arm is a process of its own that takes
every batch of an epoch once; all arms see the same rows, and those of one order the same batches.
`--spread 0.2` makes them much alike, as captions are. `--repeat 3` takes the best of three: times
move with the machine's other work.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

LLM = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "vocab_size": 2048,
    "num_attention_heads": 8, "num_key_value_heads": 4,
}  # fmt: skip
VISION = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
VISUAL, IMAGE_TOKEN, BATCH = 16, 2047, 8
# What a batch is made as, and how many batches are sorted by length together.
ARMS = [("padded", 1), ("padded", 8), ("packed", 1), ("packed", 8), ("packed, dense mask", 1)]


def main() -> None:
    """Run every arm and print a table; ratios are to padded rows in random order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--spread", type=float, default=1.0, help="deviation of log lengths")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        print(json.dumps(one(*json.loads(arguments.arm))))
        return
    print("| batches | length bucket | tokens computed | samples/s | x | peak MB | x |")
    print("|---" * 7 + "|")
    first = None
    for arm in ARMS:
        case = (*arm, arguments.rows, arguments.spread)
        runs = [in_process(case) for _ in range(arguments.repeat)]
        tokens, losses = runs[0][0], runs[0][3]
        seconds, peak = min(run[1] for run in runs), min(run[2] for run in runs)
        first = first or (seconds, peak, losses)
        if arm[1] == 1:
            # The same batches: then packing may not change what is computed.
            assert max(abs(a - b) for a, b in zip(losses, first[2], strict=True)) < 1e-4
        cells = (
            *(*arm, f"{tokens:,}", f"{arguments.rows / seconds:.2f}"),
            *(f"{first[0] / seconds:.2f}", f"{peak / 1e6:,.0f}", f"{peak / first[1]:.2f}"),
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def in_process(case: tuple[str, int, int, float]) -> list:
    """What `one` says of a case, from a process of its own."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        # Tensors go back to the system when they are freed: resident memory is what is in use.
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    command = [sys.executable, __file__, "--arm", json.dumps(case)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def one(made: str, bucket: int, n_rows: int, spread: float) -> tuple[int, float, int, list[float]]:
    """Tokens computed, CPU seconds and peak bytes of an epoch, and the loss of every batch."""
    import torch

    from vtc.data.batches import BatchOrder
    from vtc.data.collate import collate
    from vtc.data.packed import pack
    from vtc.train.attention import set_attention
    from vtc.train.settings import FINETUNE

    torch.set_num_threads(1)
    model = build()
    set_attention(model, FINETUNE.with_(pack=made == "packed"))
    rows = encoded(n_rows, spread)
    sizes = [(1, len(row.input_ids) - VISUAL) for row in rows]
    order = BatchOrder(sizes, BATCH, bucket=bucket).batches()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    levels = torch.randn(n_rows, 1, VISUAL, VISION["hidden_size"])
    before, tokens, seconds, losses = memory("VmRSS"), 0, 0.0, []
    Path("/proc/self/clear_refs").write_text("5")
    # The first batch has the longest row, and is taken twice: it warms up.
    for number, batch_rows in enumerate([order[0], *order]):
        chosen = [rows[row] for row in batch_rows]
        start = time.process_time()
        batch = collate(chosen, 0) if made == "padded" else pack(chosen)
        if "mask" in made:
            # What transformers makes of such a row by itself: a mask of its positions.
            batch = {name: part for name, part in batch.items() if "length" not in name}
            batch = {name: part for name, part in batch.items() if "cu_seq" not in name}
        loss = model(**batch, vision_levels=levels[batch_rows], use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if number:
            seconds += time.process_time() - start
            tokens += batch["input_ids"].numel()
            losses.append(loss.item())
    return tokens, seconds, memory("VmHWM") - before, losses


def build():
    """A random vision-language model, all of it but the encoder to be trained."""
    import torch
    from transformers import CLIPVisionConfig, Qwen2Config

    from vtc.model.config import VtcConfig
    from vtc.model.modeling import VtcForConditionalGeneration
    from vtc.train.stages import unfreeze_for_finetune

    torch.manual_seed(0)
    config = VtcConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=Qwen2Config(**LLM),
        image_token_index=IMAGE_TOKEN,
        compressor="mlp",
        visual_tokens=VISUAL,
    )
    model = VtcForConditionalGeneration(config)
    unfreeze_for_finetune(model)
    return model.train()


def encoded(n_rows: int, spread: float) -> list:
    """Rows of one image and a text of which the second half is supervised."""
    import numpy as np

    from vtc.data.labels import IGNORE, Encoded

    random = np.random.default_rng(0)
    texts = np.clip(np.exp(random.normal(4.8, spread, n_rows)), 16, 1024).astype(int)
    rows = []
    for text in texts:
        ids = np.concatenate([np.full(VISUAL, IMAGE_TOKEN), random.integers(1, 2000, text)])
        labels = ids.copy()
        labels[: VISUAL + text // 2] = IGNORE
        rows.append(Encoded(ids, labels, np.ones_like(ids), np.arange(len(ids))))
    return rows


def memory(key: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


if __name__ == "__main__":
    main()
