"""The tensors of a foreign checkpoint folder: safetensors, or pickles if they are allowed."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vtc.errors import InputError

_SHOWN = 5
_PROJECTORS = ("mm_projector", "query_abstractor", "non_lora_trainables")
"""Files of a projector alone, as first stages leave them, without their endings."""


def read_tensors(folder: Path, allow_bin: bool) -> dict[str, Tensor]:
    """All tensors of a checkpoint's weight files, by name, on the CPU.

    `.bin` files are pickles: they open only with `allow_bin`, and then by torch's reader of
    tensors alone. Raises InputError if there are no weights, none that may be opened, or damaged
    ones.
    """
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder, allow_bin):
        tensors.update(read := _read(file))
        check_finite(read, file)
    return tensors


def weight_files(folder: Path, allow_bin: bool) -> list[Path]:
    """The weight files of a checkpoint; raises InputError if there are none that may be opened."""
    safe = sorted(
        file for file in folder.glob("*.safetensors") if not file.stem.startswith(_PROJECTORS)
    )
    pickles = sorted(folder.glob("pytorch_model*.bin"))
    if safe or (pickles and allow_bin):
        return safe or pickles
    if pickles:
        raise InputError(_pickled(pickles[0]))
    raise InputError(f"{folder} holds no weights (*.safetensors, pytorch_model*.bin)")


def projector_file(folder: Path) -> Path | None:
    """The projector of a folder that holds nothing else of a model; None if it holds more."""
    try:
        weight_files(folder, allow_bin=True)
    except InputError:
        for stem in _PROJECTORS:
            for ending in (".safetensors", ".bin"):
                file = folder / f"{stem}{ending}"
                if file.is_file():
                    return file
    return None


def read_projector(file: Path, allow_bin: bool) -> dict[str, Tensor]:
    """The tensors of a projector's file; raises InputError as `read_tensors`."""
    if file.suffix == ".bin" and not allow_bin:
        raise InputError(_pickled(file))
    tensors = _read(file)
    check_finite(tensors, file)
    return tensors


def _pickled(file: Path) -> str:
    return (
        f"{file.parent} has its weights in {file.name}, a pickle, which may hold programs; "
        "--allow-bin opens it as tensors alone"
    )


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with warnings.catch_warnings():
            # Of pickles' protocols, which say nothing of whether the tensors are whole.
            warnings.simplefilter("ignore")
            found = torch.load(
                file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
            )
    except pickle.UnpicklingError:
        raise InputError(
            f"{file} holds more than tensors, or is damaged, and vtc does not open it; save its "
            "tensors as safetensors"
        ) from None
    except (OSError, RuntimeError, SafetensorError, EOFError) as error:
        raise _damaged(file, first_sentence(error)) from None
    except Exception:
        # Bytes that are no pickle: its reader takes them for commands, and fails in any way.
        raise _damaged(file, "no pickle of tensors") from None
    if not isinstance(found, dict) or not all(isinstance(part, Tensor) for part in found.values()):
        raise InputError(f"{file} holds no tensors by name; give a model's weights")
    return found


def first_sentence(error: Exception) -> str:
    """What a library says of a file that it cannot read, without its guesses at why."""
    said = str(error).strip() or type(error).__name__
    return re.split(r"\.\s", said.splitlines()[0])[0].rstrip(".")


def _damaged(file: Path, what: str) -> InputError:
    return InputError(f"{file} is damaged ({what}); copy the file again")


def check_finite(tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise InputError, naming it, for a tensor that has numbers which are none (NaN, infinity)."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.element_size() > 1 and not tensor.isfinite().all():
            raise InputError(
                f"{source}: {name} holds NaN or infinity; its training went astray, or the file is "
                "damaged"
            )


def check_fit(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    source: object,
    to: str = "its config.json",
) -> None:
    """Raise InputError, listing them, for tensors that are missing, mis-shaped or unknown.

    `found` and `wanted` map names to tensors, of which the shapes are compared; `to` is what
    says which are wanted.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    wrong = [
        f"{name} {list(tensor.shape)} instead of {list(shapes[name])}"
        for name, tensor in found.items()
        if name in shapes and tuple(tensor.shape) != shapes[name]
    ]
    faults = {
        "missing": [name for name in wanted if name not in found],
        "of another shape": wrong,
        "unknown": [name for name in found if name not in wanted],
    }
    said = [f"{what}: {', '.join(_some(names))}" for what, names in faults.items() if names]
    if said:
        raise InputError(f"{source} does not fit {to}; {'; '.join(said)}")


def _some(names: list[str]) -> Iterator[str]:
    yield from names[:_SHOWN]
    if len(names) > _SHOWN:
        yield f"and {len(names) - _SHOWN} more"
