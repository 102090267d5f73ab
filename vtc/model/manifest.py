"""A run's manifest.json: what it is made of, by name, shape and hash; never by folder names."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.model.sources import hub_folder

MANIFEST = "manifest.json"
_NEEDED = {"run_id", "weights", "compressor", "visual_tokens", "encoder", "llm"}


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """A run's manifest. Raises InputError if the folder is missing or no finished run."""
    folder = run_folder(folder)
    path = folder / MANIFEST
    if not path.is_file():
        what = (
            "is no finished run: it has no manifest.json" if folder.is_dir() else "does not exist"
        )
        raise InputError(f"run {folder} {what}; train one with train-projector or finetune")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"run {folder}: manifest.json is not valid JSON: {error}") from None
    if not isinstance(manifest, dict) or _NEEDED - set(manifest):
        raise InputError(f"{path} is not a run's manifest; give the folder of a finished run")
    return manifest


def run_folder(run: str | Path) -> Path:
    """The folder of a run: itself, or of `hf://ORG/NAME` where the hub's files are kept.

    Raises InputError if the hub has no such repository, or is not reached.
    """
    # A Path takes the second slash away.
    name = re.sub(r"^hf:/{1,2}", "", str(run))
    return Path(run) if name == str(run) else hub_folder(name)


def write_manifest(manifest: Mapping[str, Any], folder: Path) -> None:
    """Write a manifest, last of all files of a run: its presence means that the run is whole."""
    text = json.dumps(manifest, indent=2, default=str)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def shapes_of(model: Any) -> dict[str, Any]:
    """The sizes that must agree between encoder, compressor and LLM."""
    vision, text = model.config.vision_config, model.config.text_config
    return {
        "grid": list(model.model.grid),
        "levels": list(model.compressor.request.levels),
        "vision_width": vision.hidden_size,
        "vision_layers": vision.num_hidden_layers,
        "text_width": text.hidden_size,
        "text_layers": text.num_hidden_layers,
        "vocabulary": text.vocab_size,
    }


def check_shapes(model: Any, manifest: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError, naming them, for sizes of a loaded model that its run states otherwise."""
    stated = manifest.get("shapes", {})
    found = shapes_of(model)
    for name, value in stated.items():
        if found.get(name) != value:
            raise InputError(
                f"run {folder} was made for {name} {value}, but what it stands on has "
                f"{found.get(name)}; give it its own backbones back"
            )


def hashes_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of every weight file of a run, by its name in the folder."""
    return {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": _sha256(file)}
        for file in _weight_files(folder)
    }


def check_hashes(manifest: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError for a weight file that is not the one the manifest states.

    The whole model's files are compared by size, the small trained part's by content.
    """
    whole = manifest["weights"] == "full"
    for name, stated in manifest.get("files", {}).items():
        file = folder / name
        if not file.is_file():
            raise InputError(f"run {folder} is damaged: it lacks {name}")
        same = file.stat().st_size == stated["bytes"]
        if not same or not (whole or _sha256(file) == stated["sha256"]):
            raise InputError(
                f"run {folder}: {name} is damaged, or of another run (its manifest states other "
                "contents); copy the run again, or train it again"
            )


def _weight_files(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*.safetensors"))


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
