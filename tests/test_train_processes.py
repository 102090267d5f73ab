"""The same commands under a launcher: two processes train what one would."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from train_kills import end_of_child, killed_at
from train_runs import same_run
from train_samples import write
from transformers import TrainingArguments

from vtc import cli
from vtc.errors import InputError
from vtc.tables.read import read_rows
from vtc.train import processes, trainer
from vtc.train.settings import FINETUNE, PROJECTOR

STEPS = ("--batch-size", "3", "--accumulate", "2", "--epochs", "2", "--log-every", "1")
LORA = ("--method", "lora", "--lora-dropout", "0", "--lora-r", "4", "--save-every", "2")
FULL = ("--lr", "1e-3", "--gradient-checkpointing", "--save-every", "2")


def stage_1(world, out, visual_tokens="4"):
    return (
        "train-projector", "samples.json", "--images", str(world.images), "--encoder",
        str(world.encoder), "--llm", str(world.qwen), "--visual-tokens", visual_tokens, *STEPS,
        "--lr", "1e-2", "-o", out,
    )  # fmt: skip


def elastic(world, out):
    """Both elastic compressors, at a V drawn for each step and at all of them."""
    turns = ("--compressor", "mqt,m3", "--train-visual-tokens", "1,4,9")
    return (*stage_1(world, out, visual_tokens="9"), *turns)


def stage_2(world, run, out, *how, samples="samples.json"):
    return (
        "finetune", run, "--samples", samples, "--images", str(world.images), *STEPS, *how,
        "-o", out,
    )  # fmt: skip


def run_alone(commands):
    for command in commands:
        with pytest.raises(SystemExit) as end:
            cli.run(list(command))
        assert end.value.code == 0


def launch(commands):
    # On a machine without GPUs this launches two processes on the CPU, which meet through gloo.
    launched = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0",
        str(Path(__file__).with_name("train_launched.py")), json.dumps(commands),
    ]  # fmt: skip
    done = subprocess.run(launched, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr


def same_trace(alone, both, loss, norm):
    one, two = (read_rows(run / "train_log.parquet").rows for run in (alone, both))
    assert len(one) == len(two) == 8
    for left, right in zip(one, two, strict=True):
        assert right["loss"] == pytest.approx(left["loss"], rel=loss)
        assert right["grad_norm"] == pytest.approx(left["grad_norm"], rel=norm)
        for name in ("step", "samples_seen", "supervised_tokens", "learning_rate"):
            assert left[name] == right[name]
    manifest = json.loads((both / "manifest.json").read_text())
    assert manifest["footer"]["settings"]["accumulate"] == 2


def test_two_processes_train_as_one(tiny_world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # 24 samples in batches of 3: an even number, so that no process needs rows twice.
    write(tmp_path)

    def commands(out):
        one = f"{out}/one/tokenpacker-v4"
        return [
            stage_1(tiny_world, f"{out}/one"),
            stage_2(tiny_world, one, f"{out}/two", *LORA),
            elastic(tiny_world, f"{out}/turns"),
        ]

    run_alone(commands("alone"))
    said = launch(commands("both"))
    assert said.count("wrote both/one/tokenpacker-v4 ") == 1
    for run in ("one/tokenpacker-v4", "two/tiny-qwen-tokenpacker-v4"):
        same_trace(tmp_path / "alone" / run, tmp_path / "both" / run, loss=1e-5, norm=1e-4)
    for run in ("turns/mqt-v9", "turns/m3-v9"):
        same_trace(tmp_path / "alone" / run, tmp_path / "both" / run, loss=1e-5, norm=1e-4)
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["one", "turns", "two"]


def test_a_model_in_two_parts_trains_as_a_whole(tiny_world, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    # Batches without images beside batches with them, and steps without any.
    (tmp_path / "mixed").mkdir()
    write(tmp_path / "mixed", text_only=9)
    parent, mixed = "alone/one/tokenpacker-v4", "mixed/samples.json"

    def commands(out):
        return [
            stage_1(tiny_world, f"{out}/one", visual_tokens="1,4"),
            stage_2(tiny_world, parent, f"{out}/lora", *LORA, samples=mixed),
            stage_2(tiny_world, parent, f"{out}/full", *FULL, samples=mixed),
            elastic(tiny_world, f"{out}/turns"),
            stage_2(tiny_world, "alone/turns/m3-v9", f"{out}/m3", *LORA, samples=mixed),
        ]

    run_alone(commands("alone"))
    capfd.readouterr()
    assert in_parts(lambda rank: run_alone(commands("both"))) == [0, 0]
    said = capfd.readouterr().err
    assert said.count("wrote both/one/tokenpacker-v4 ") == 1
    runs = ("one/tokenpacker-v1", "one/tokenpacker-v4", "lora/tiny-qwen-tokenpacker-v4")
    turns = ("turns/mqt-v9", "turns/m3-v9", "m3/tiny-qwen-m3-v9")
    for run in (*runs, *turns, "full/tiny-qwen-tokenpacker-v4"):
        same_trace(tmp_path / "alone" / run, tmp_path / "both" / run, loss=1e-6, norm=1e-5)

    # Killed in its sixth step and resumed, it is the run that was left alone, bit for bit.
    again = stage_2(tiny_world, parent, "cut/full", *FULL, samples=mixed)

    def doomed(rank):
        # A step is a batch in each of the two processes.
        with killed_at("batch", 6 if rank == 1 else 0):
            run_alone([again])

    assert in_parts(doomed)[1] == -signal.SIGKILL
    assert (tmp_path / f"cut/{run}.training/step-00000004/manifest.json").is_file()

    def refused(rank):
        # The first alone looks for checkpoints; all end with its sentence, none in words of gloo.
        with pytest.raises(SystemExit) as end:
            cli.run(list(again))
        assert end.value.code == 2

    assert in_parts(refused) == [0, 0]
    assert in_parts(lambda rank: run_alone([(*again, "--resume")])) == [0, 0]
    same_run(tmp_path / "both" / run, tmp_path / "cut" / run)
    assert [path.name for path in (tmp_path / "cut/full").iterdir()] == [Path(run).name]


def test_parts_train_under_autocast(tiny_world, tmp_path, monkeypatch):
    # What a GPU does by itself: products in bf16.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        trainer, "TrainingArguments", lambda **how: TrainingArguments(**{**how, "bf16": True})
    )
    write(tmp_path)
    one = "one/tokenpacker-v4"
    begun = end_of_child(lambda: run_alone([(*stage_1(tiny_world, "one"), "--max-steps", "1")]))
    assert begun == 0

    def commands(out):
        full = stage_2(tiny_world, one, f"{out}/full", "--lr", "1e-3")
        return [stage_2(tiny_world, one, f"{out}/lora", *LORA), full]

    assert end_of_child(lambda: run_alone(commands("alone"))) == 0
    assert in_parts(lambda rank: run_alone(commands("both"))) == [0, 0]
    run = "tiny-qwen-tokenpacker-v4"
    same_trace(tmp_path / "alone/lora" / run, tmp_path / "both/lora" / run, loss=1e-6, norm=1e-5)
    # A layer comes in bf16, its norms too.
    same_trace(tmp_path / "alone/full" / run, tmp_path / "both/full" / run, loss=1e-2, norm=0.1)
    weights = load_file(tmp_path / "both/full" / run / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def in_parts(work) -> list[int]:
    """Run `work(rank)` in two forks of this process that share their model; how each ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    shared |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}

    def one(rank):
        os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
        processes.is_sharded.cache_clear()
        processes.join.cache_clear()
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        work(rank)

    # The second is a fork of a fork, so that both run at a time.
    children = [
        os.fork() or os._exit(-end_of_child(lambda rank=rank: one(rank))) for rank in (0, 1)
    ]
    return [-os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.fixture
def parts(monkeypatch):
    """As if two processes were to share a model."""
    for name, value in {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"}.items():
        monkeypatch.setenv(name, value)
    processes.is_sharded.cache_clear()
    processes.join.cache_clear()
    yield monkeypatch
    processes.is_sharded.cache_clear()
    processes.join.cache_clear()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (FINETUNE.with_(method="qlora"), "4 bits"),
        (PROJECTOR.with_(load_4bit=True), "4 bits"),
        (PROJECTOR.with_(objective="align"), "--objective align"),
        (FINETUNE.with_(optimizer="adamw-8bit"), "--optimizer adamw-8bit"),
        (FINETUNE.with_(compile=True), "--compile"),
        (FINETUNE.with_(auto_batch=True), "--auto-batch"),
        (FINETUNE.with_(dtype="bf16"), "--dtype auto"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_shared_out_is_refused(parts, settings, word):
    with pytest.raises(InputError, match=word):
        processes.refuse_unshardable(settings)
    parts.delenv("ACCELERATE_USE_FSDP")
    processes.is_sharded.cache_clear()
    processes.refuse_unshardable(settings)


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"FSDP_VERSION": "1"}, "--fsdp_version 2"),
        ({"FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "--fsdp_offload_params"),
        ({"FSDP_VERSION": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"}, "gradient-checkpointing"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "--use_fsdp --fsdp_version 2"),
    ],
)
def test_other_ways_of_sharing_are_refused(parts, variables, word):
    for name, value in variables.items():
        parts.setenv(name, value)
    with pytest.raises(InputError, match=word):
        processes.join()
