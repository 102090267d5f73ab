"""Memory of a process in full finetuning: alone, one of two with the whole model, one of two parts.

    python benchmarks/sharding.py [--width 1536]

Each of the two launches is `accelerate launch`, on a CPU through gloo, on the same random LLM. What
counts is resident memory above the process with its libraries: held between two steps, and at the
peak of the third.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from training_world import make_world

LAUNCHES = {
    "alone": [],
    "whole models (DDP)": ["--multi_gpu"],
    "in parts (FSDP2)": ["--use_fsdp", "--fsdp_version", "2"],
}
STEP = 2  # counted from 0: states exist, and what the start needed is gone


def main() -> None:
    """Make the LLM and its stage 1, and print a line a launch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=1536)
    asked = parser.parse_args()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    with tempfile.TemporaryDirectory() as folder:
        make_world(Path(folder), 400, 8, width=asked.width)
        first = [
            "train-projector", "pretrain.json", "--images", "images", "--encoder", "encoder",
            "--llm", "llm", "--compressor", "avgpool", "--visual-tokens", "16", "--max-steps", "1",
            "--batch-size", "1", "--accumulate", "2", "-o", "one",
        ]  # fmt: skip
        vtc = [sys.executable, "-m", "vtc"]
        subprocess.run([*vtc, *first], cwd=folder, env=environment, check=True, capture_output=True)
        for name, how in LAUNCHES.items():
            launcher = ["-m", "accelerate.commands.launch", *how, "--num_processes", "2"]
            flags = ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1"]
            command = [
                sys.executable,
                *([*launcher, *flags, "--main_process_port", "0"] if how else []),
            ]
            done = subprocess.run(
                [*command, __file__, "--measured"], cwd=folder, env=environment,
                capture_output=True, text=True,
            )  # fmt: skip
            lines = [line for line in done.stdout.splitlines() if line.startswith("held")]
            print(f"{name}: {'; '.join(lines) or done.stderr}", flush=True)


def measured() -> None:
    """One process: finetune, and say what it holds at a step and at its peak."""
    from vtc import cli
    from vtc.train.trainer import VtcTrainer

    start, train = _bytes("VmRSS:"), VtcTrainer.training_step
    marks: dict[str, float] = {}

    def step(trainer, *args, **kwargs):
        at = trainer.state.global_step
        if at == STEP and not marks:
            marks["held"] = _bytes("VmRSS:") - start
            Path("/proc/self/clear_refs").write_text("5")
        if at == STEP + 1 and "peak" not in marks:
            marks["peak"] = _bytes("VmHWM:") - start
            print(
                ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in marks.items()), flush=True
            )
        return train(trainer, *args, **kwargs)

    VtcTrainer.training_step = step  # type: ignore[method-assign]
    cli.run([
        "finetune", "one/avgpool-v16", "--samples", "finetune.json", "--images", "images",
        "--batch-size", "1", "--accumulate", "2", "--max-steps", "4", "--save-every", "0",
        "--force", "-o", "two",
    ])  # fmt: skip


def _bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    measured() if "--measured" in sys.argv else main()
