"""Where a run's backbones come from: names, places, sizes, and what tells two of them apart."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vtc.catalog.llms import find
from vtc.errors import InputError

_PIECE = 1 << 20
_WEIGHTS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin", "*.bin")
"""What holds a model's weights, the first that is there."""


@dataclass(frozen=True)
class EncoderSource:
    """A vision encoder: its name, its absolute folder or hub id, its fingerprint, and the hub's
    revision (commit) of an id."""

    name: str
    path: str
    fingerprint: str
    revision: str | None = None


@dataclass(frozen=True)
class LlmSource:
    """An LLM: as EncoderSource, with its family and its parameter counts before vtc adds any."""

    name: str
    path: str
    fingerprint: str
    family: str
    n_params: int
    n_params_total: int
    n_params_nonembedding: int
    revision: str | None = None


def encoder_source(source: str | Path) -> EncoderSource:
    """Describe an encoder's folder or hub id; raises InputError if there is none."""
    return EncoderSource(_name(source), _place(source), fingerprint(source), _revision(source))


def llm_source(source: str | Path, llm: nn.Module, *, name: str | None = None) -> LlmSource:
    """Describe an LLM, already loaded, and its folder or hub id; of a Llava, its LLM alone.

    `name` takes the place of the folder's or the id's.

    The nominal count is the catalog's figure for that name, else `n_params_nominal` of its
    config.json, else its total. The family is the catalog's, else the config's `family`, else its
    model type.
    """
    name, config = name or _name(source), llm.config.get_text_config()  # type: ignore[union-attr, operator]
    known = find(name)
    total = sum(weight.numel() for weight in _llm_weights(llm))
    nominal = known.n_params if known else getattr(config, "n_params_nominal", None)
    family = known.family if known else getattr(config, "family", None)
    return LlmSource(
        name=name,
        path=_place(source),
        fingerprint=fingerprint(source),
        family=str(family or config.model_type),  # type: ignore[union-attr]
        n_params=int(nominal or total),
        n_params_total=total,
        n_params_nonembedding=total - _embedding_params(llm),
        revision=_revision(source),
    )


def fingerprint(source: str | Path) -> str:
    """SHA-256 over the configs of a model folder and samples of its weights, in hex.

    Of each weight file the size and the first and last MiB are read: enough to tell two models
    apart, and quick for tens of gigabytes.
    """
    digest = hashlib.sha256()
    for file in _model_files(model_folder(source)):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with open(file, "rb") as stream:
            digest.update(stream.read(_PIECE))
            if size > _PIECE:
                stream.seek(max(_PIECE, size - _PIECE))
                digest.update(stream.read())
    return digest.hexdigest()


def model_folder(source: str | Path) -> Path:
    """The folder of a model: itself, or where the hub's files of an id are kept.

    Raises InputError if there is neither.
    """
    if Path(source).is_dir():
        return Path(source)
    from transformers.utils.hub import cached_file

    try:
        config = cached_file(str(source), "config.json")
    except (OSError, ValueError) as error:
        raise InputError(missing(source, error)) from None
    return Path(str(config)).parent


def hub_folder(name: str, revision: str | None = None, *, pickles: bool = True) -> Path:
    """The folder of a hub repository's files at a revision, fetched where they are not at hand.

    Weights are safetensors, or with `pickles` .bin where there are none. Raises InputError if the
    hub has none, or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    files = ["*.json", "*.txt", "*.jinja", "*.model", "*.parquet"]
    try:
        for weights in (["*.safetensors"], ["*.bin"])[: 2 if pickles else 1]:
            folder = Path(
                snapshot_download(
                    name, revision=revision, allow_patterns=[*files, *weights],
                    ignore_patterns=["*/*.bin"],
                )
            )  # fmt: skip
            if any(folder.rglob(weights[0])):
                return folder
    except (OSError, ValueError) as error:
        raise InputError(missing(name, error)) from None
    way = "" if pickles else " in safetensors; --allow-bin opens pickles as tensors alone"
    raise InputError(f"model {name}: the hub's files hold no weights{way}")


def missing(source: str | Path, error: Exception) -> str:
    """The sentence for a model that is not to be had."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if Path(source).is_dir():
        return f"model {source} cannot be loaded ({first})"
    return f"model {source}: neither a model folder nor a model the hub can give ({first})"


def manifest_entry(source: EncoderSource | LlmSource, run: Path) -> dict[str, Any]:
    """A source as a run's manifest states it: also relative to the run, so both may move."""
    place = Path(source.path)
    relative = os.path.relpath(place, run.absolute()) if place.is_absolute() else None
    return {**asdict(source), "relative_path": relative}


def folder_entry(place: Path, run: Path) -> dict[str, Any]:
    """A folder that a run stands on, as its manifest states it."""
    absolute = place.resolve()
    return {
        "path": str(absolute),
        "relative_path": os.path.relpath(absolute, run.absolute()),
        "fingerprint": fingerprint(absolute),
    }


def locate(entry: dict[str, Any], run: Path) -> str:
    """Where the model of a manifest's entry stands now, checked to be the one it was.

    Raises InputError if it is gone or has changed since.
    """
    if not Path(entry["path"]).is_absolute():
        place = str(hub_folder(entry["path"], entry.get("revision")))
        return _checked(place, entry, run)
    relative = entry.get("relative_path")
    places = [entry["path"], *([str((run / relative).resolve())] if relative else [])]
    place = next((place for place in places if Path(place).is_dir()), entry["path"])
    if not Path(place).is_dir():
        raise InputError(f"run {run} stands on {entry['path']}, which is gone; put it back there")
    return _checked(place, entry, run)


def _checked(place: str, entry: dict[str, Any], run: Path) -> str:
    if fingerprint(place) != entry["fingerprint"]:
        raise InputError(
            f"run {run} was trained on another model than {place} holds now; put the old one back "
            "or train again"
        )
    return place


def _name(source: str | Path) -> str:
    path = Path(source)
    return path.resolve().name if path.is_dir() else str(source).rstrip("/").split("/")[-1]


def _place(source: str | Path) -> str:
    return str(Path(source).resolve()) if Path(source).is_dir() else str(source)


def _revision(source: str | Path) -> str | None:
    """The commit of a hub id's files at hand; None for a folder."""
    if Path(source).is_dir():
        return None
    folder = model_folder(source)
    return folder.name if folder.parent.name == "snapshots" else None


def _model_files(folder: Path) -> Iterator[Path]:
    """Configs and weights, in the form that transformers would load."""
    for pattern in ("config.json", "preprocessor_config.json"):
        yield from sorted(folder.glob(pattern))
    for pattern in _WEIGHTS:
        found = sorted(folder.glob(pattern))
        if found:
            yield from found
            return


def _llm_weights(llm: Any) -> Iterator[nn.Parameter]:
    """The weights of an LLM, or of the one in a Llava, each once."""
    inside = getattr(getattr(llm, "model", None), "language_model", None)
    parts = (llm,) if inside is None else (inside, llm.lm_head)
    yield from {id(w): w for part in parts for w in part.parameters()}.values()


def _embedding_params(llm: Any) -> int:
    """Parameters of the input embedding, and of the output head where it is not the same."""
    tables = {id(m.weight): m.weight for m in _tables(llm)}
    return sum(weight.numel() for weight in tables.values())


def _tables(llm: Any) -> Iterator[Any]:
    for module in (llm.get_input_embeddings(), llm.get_output_embeddings()):
        if module is not None:
            yield module
