"""A finetuning step through Trainer against a bare loop over the same batches and model.

    vtc lab world --preset quick
    python benchmarks/train_step.py world mini-a,mini-c 1,36

CPU milliseconds a step (process time, one thread), and their ratio, of 60 steps each.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from vtc.data.samples import read_samples
from vtc.model.assemble import assemble
from vtc.train.inputs import Inputs
from vtc.train.settings import FINETUNE
from vtc.train.stages import unfreeze_for_finetune
from vtc.train.trainer import fit_model

STEPS, BATCH = 60, 16
SETTINGS = FINETUNE.with_(
    learning_rate=1e-3, batch_size=BATCH, accumulate=1, max_steps=STEPS, turns="independent"
)


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds a step of `work`, which runs STEPS of them."""
    start = time.process_time()
    work()
    return (time.process_time() - start) / STEPS * 1e3


def bare_loop(model: torch.nn.Module, collate: Callable, rows: list[int]) -> None:
    """What a step must do: collate, forward, backward, clip, AdamW."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    for at in range(STEPS):
        batch = collate(rows[at * BATCH : (at + 1) * BATCH])
        loss = model(**batch, num_items_in_batch=batch["labels"].numel()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()


def main() -> None:
    """Time every LLM and V asked, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("world", type=Path)
    parser.add_argument("llms", type=lambda text: text.split(","))
    parser.add_argument("visual_tokens", type=lambda text: [int(part) for part in text.split(",")])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world = arguments.world
    samples = read_samples([world / "finetune.json"], world / "images")
    inputs = Inputs(samples, SETTINGS)
    rows = torch.randperm(len(samples.rows), generator=torch.Generator().manual_seed(0)).tolist()
    for llm in arguments.llms:
        for tokens in arguments.visual_tokens:
            built = assemble(world / "encoder", world / "llm" / llm, "tokenpacker", tokens)
            collate = inputs.lm_collator(built.model, built.processor, built.encoder)
            unfreeze_for_finetune(built.model)
            twin = copy.deepcopy(built.model).train()
            bare = cpu_ms(partial(bare_loop, twin, collate, rows))
            with tempfile.TemporaryDirectory() as folder:
                fit = partial(fit_model, built.model, collate.dataset, collate, SETTINGS)
                trainer = cpu_ms(partial(fit, Path(folder)))
            times = f"bare {bare:.1f} ms, Trainer {trainer:.1f} ms"
            print(f"{llm} V={tokens}: {times}, ratio {trainer / bare:.2f}")


if __name__ == "__main__":
    main()
