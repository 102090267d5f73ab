"""The same commands under a launcher: two processes train what one would."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from train_samples import write

from vtc import cli
from vtc.tables.read import read_rows

STEPS = ("--batch-size", "3", "--accumulate", "2", "--epochs", "2", "--log-every", "1")


def commands(world, out):
    samples = ("samples.json", "--images", str(world.images))
    stage_1 = (
        "train-projector", *samples, "--encoder", str(world.encoder), "--llm", str(world.qwen),
        "--visual-tokens", "4", *STEPS, "--lr", "1e-2", "-o", f"{out}/one",
    )  # fmt: skip
    stage_2 = (
        "finetune", f"{out}/one/tokenpacker-v4", "--samples", *samples, *STEPS, "--method", "lora",
        "--lora-dropout", "0", "--lora-r", "4", "--save-every", "2", "-o", f"{out}/two",
    )  # fmt: skip
    return stage_1, stage_2


def test_two_processes_train_as_one(tiny_world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # 24 samples in batches of 3: an even number, so that no process needs rows twice.
    write(tmp_path)
    for command in commands(tiny_world, "alone"):
        with pytest.raises(SystemExit) as end:
            cli.run(list(command))
        assert end.value.code == 0
    # On a machine without GPUs this launches two processes on the CPU, which meet through gloo.
    launched = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0",
        str(Path(__file__).with_name("train_launched.py")),
        json.dumps(commands(tiny_world, "both")),
    ]  # fmt: skip
    done = subprocess.run(launched, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("wrote both/one/tokenpacker-v4 ") == 1
    assert done.stdout == ""
    for run in ("one/tokenpacker-v4", "two/tiny-qwen-tokenpacker-v4"):
        alone, both = (
            read_rows(tmp_path / start / run / "train_log.parquet").rows
            for start in ("alone", "both")
        )
        assert len(alone) == len(both) == 8
        for one, other in zip(alone, both, strict=True):
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
            assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
            for name in ("step", "samples_seen", "supervised_tokens", "learning_rate"):
                assert one[name] == other[name]
        manifest = json.loads((tmp_path / "both" / run / "manifest.json").read_text())
        assert manifest["footer"]["settings"]["accumulate"] == 2
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["one", "two"]
