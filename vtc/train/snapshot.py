"""What a checkpoint of a training holds, and how a trainer is put back to where it was.

`weights.safetensors` (what trains, by name), `optimizer.pt`, `schedule.pt`, `chance.pt` (the
state of every random generator, a process each), `trainer_state.json` (Trainer's: the position in
the data, as steps), `progress.json` (our counters, the loss since the last row) and
`train_log.parquet`.
The `.pt` files hold tensors, numbers and strings alone and load with `weights_only=True`.
"""

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from vtc.errors import InputError
from vtc.tables import specs
from vtc.tables.read import read_rows
from vtc.tables.write import write_rows
from vtc.train.processes import is_sharded
from vtc.train.sharding import part_like, whole_tensor

WEIGHTS = "weights.safetensors"
PROGRESS = "progress.json"
LOG = "train_log.parquet"


def trained_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name; one that stands in two places is there once."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


@dataclass(frozen=True)
class Shared:
    """What all processes have a part in: trained weights, optimizer, chance, loss since the row."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    chance: list[dict[str, Any]]
    loss_since_row: float


def gather_shared(trainer: Any) -> Shared:
    """Bring together what the processes hold, each for itself; all of them must call it.

    Under FSDP whole tensors lie on the CPU of the first process, and the others' are empty.
    """
    weights = trained_weights(trainer.model).items()
    optimizer = trainer.optimizer.state_dict()
    states = {
        number: {name: whole_tensor(value) for name, value in state.items()}
        for number, state in sorted(optimizer["state"].items())
    }
    return Shared(
        {name: whole_tensor(weight.detach()).contiguous() for name, weight in weights},
        {**optimizer, "state": states},
        chance_of_all(),
        trainer.loss_since_row,
    )


def write_snapshot(trainer: Any, folder: Path, shared: Shared) -> None:
    """Put the trainer's state into a folder. Called by the first process alone."""
    save_file(shared.weights, folder / WEIGHTS, metadata={"format": "pt"})
    torch.save(shared.optimizer, folder / "optimizer.pt")
    torch.save(trainer.lr_scheduler.state_dict(), folder / "schedule.pt")
    torch.save(shared.chance, folder / "chance.pt")
    trainer.state.save_to_json(str(folder / "trainer_state.json"))
    progress = {
        "step": trainer.state.global_step,
        "max_steps": trainer.state.max_steps,
        "counts": asdict(trainer.counts),
        "loss_since_row": shared.loss_since_row,
        "step_of_row": trainer.step_of_row,
    }
    (folder / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
    write_rows(trainer.log_rows, specs.TRAIN_LOG, folder / LOG)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Put the trained weights of a checkpoint into a model, all of them and no others.

    Raises InputError naming one that is missing, left over, or of another shape.
    """
    ours = trained_weights(model)
    with safe_open(folder / WEIGHTS, "pt") as saved, torch.no_grad():
        shapes = {name: saved.get_slice(name).get_shape() for name in saved.keys()}  # noqa: SIM118
        odd = sorted(set(ours) ^ set(shapes))
        odd += [name for name in ours if name in shapes and list(ours[name].shape) != shapes[name]]
        if odd:
            raise InputError(f"checkpoint {folder} is of another model: {odd[0]} does not fit")
        for name, weight in ours.items():
            weight.copy_(part_like(saved.get_tensor(name), weight))


def load_optimizer(trainer: Any, folder: Path) -> None:
    """Put optimizer and schedule back."""
    optimizer = trainer.optimizer
    # Of several processes on a CPU each has a "cpu:0", which torch cannot load to.
    device = trainer.args.device if trainer.args.device.type != "cpu" else "cpu"
    saved = _load(folder / "optimizer.pt", "cpu" if is_sharded() else device)
    if is_sharded():
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        saved["state"] = {
            number: {
                name: part_like(value, weights[number]) if _is_of(value, weights[number]) else value
                for name, value in state.items()
            }
            for number, state in saved["state"].items()
        }
    optimizer.load_state_dict(saved)
    trainer.lr_scheduler.load_state_dict(_load(folder / "schedule.pt"))


def _is_of(value: Any, weight: torch.Tensor) -> bool:
    """Whether a value of the optimizer's state has an entry for each of the weight's."""
    return isinstance(value, torch.Tensor) and value.shape == weight.shape


def load_progress(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Our counters, and the rows of the training log so far."""
    progress = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    return progress, read_rows(folder / LOG, specs.TRAIN_LOG).rows


def chance_of_all() -> list[dict[str, Any]]:
    """The state of every random generator, of every process; all of them must call it."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        "python": random.getstate(),
        # As plain numbers: an array would need code to be loaded.
        "numpy": (kind, np.asarray(keys).tolist(), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    return gather_object([state])


def load_chance(folder: Path, process: int) -> None:
    """Put this process's random generators back."""
    state = _load(folder / "chance.pt")[process]
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _load(file: Path, device: Any = "cpu") -> Any:
    return torch.load(file, map_location=device, weights_only=True)
