"""Short trainings of both stages over the tiny world, and whether two of them ended the same."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from vtc.tables.read import read_rows
from vtc.train.checkpoints import Saving
from vtc.train.finetune import finetune_runs
from vtc.train.inputs import Inputs
from vtc.train.jobs import FinetuneJob, ProjectorJob
from vtc.train.projector import train_projectors
from vtc.train.settings import FINETUNE, PROJECTOR, LoraSettings

# 24 samples are 6 batches: an epoch and a half, rows of the log between checkpoints.
STEPS = {"batch_size": 4, "accumulate": 1, "max_steps": 9, "log_every": 4, "learning_rate": 1e-2}
TALKING = {"turns": "independent", "max_questions": 1}
LORA = {"lora": LoraSettings(4, 8, 0.2)}
STAGE_1 = PROJECTOR.with_(**STEPS)
STAGE_2 = {
    "full": FINETUNE.with_(**STEPS, **TALKING),
    "lora": FINETUNE.with_(**STEPS, **TALKING, **LORA, method="lora"),
    "qlora": FINETUNE.with_(**STEPS, **LORA, method="qlora"),
}


def silent(*told):
    pass


def about(settings):
    """The part of a footer that says what was trained on."""
    return {"settings": settings.as_dict(), "inputs": [{"path": "s", "sha256": "data"}]}


def stage_1(world, samples, out, settings=STAGE_1, visual_tokens=(4,), **how) -> list[Path]:
    """Train compressors; `how`: `compressor`, the fields of Saving, `say`, `advance`, `force`."""
    compressor = how.pop("compressor", "tokenpacker")
    say, advance, force = (
        how.pop("say", silent),
        how.pop("advance", silent),
        how.pop("force", False),
    )
    job = ProjectorJob(
        str(world.encoder), str(world.qwen), (compressor,), visual_tokens, out, force,
        saving=Saving(**how),
    )  # fmt: skip
    inputs = Inputs(samples, settings)
    return train_projectors(job, inputs, footer=about(settings), say=say, advance=advance)


def stage_2(run, samples, out, method, **how) -> list[Path]:
    """Finetune one run; `how`: the fields of Saving, and `say`."""
    say = how.pop("say", silent)
    job = FinetuneJob((run,), out, method=method, saving=Saving(**how))
    settings = STAGE_2[method]
    return finetune_runs(job, Inputs(samples, settings), footer=about(settings), say=say)


def same_run(left: Path, right: Path) -> None:
    """Assert equality in every weight, and in all of the log but times and memory."""
    files = sorted(path.relative_to(left) for path in left.rglob("*.safetensors"))
    assert files
    for file in files:
        one, other = load_file(left / file), load_file(right / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), file
    logs = [read_rows(run / "train_log.parquet").rows for run in (left, right)]
    measured = ("seconds", "tokens_per_second", "images_per_second", "peak_memory_bytes")
    for row in (*logs[0], *logs[1]):
        for name in measured:
            row.pop(name)
    assert logs[0] == logs[1]


def left_beside(out: Path) -> list[str]:
    """What stands in a folder of runs beside the finished ones."""
    return sorted(path.name for path in out.iterdir() if not (path / "manifest.json").is_file())
