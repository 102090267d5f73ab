"""Run folders: what a training leaves, and how it comes back as a model."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vtc.errors import InputError
from vtc.model.assemble import assemble
from vtc.model.backbones import Encoder, Llm, load_image_processor
from vtc.model.config import VtcConfig
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.processor import VtcProcessor
from vtc.model.sources import EncoderSource, LlmSource, locate, manifest_entry
from vtc.tables import specs
from vtc.tables.atomic import replacing_folder
from vtc.tables.write import write_rows

MANIFEST = "manifest.json"
COMPRESSOR_WEIGHTS = "compressor.safetensors"
Stage = Literal["projector", "finetune"]
Weights = Literal["compressor", "full"]


@dataclass
class Run:
    """A finished run, loaded: the model in eval mode, its processor, and its manifest."""

    folder: Path
    manifest: dict[str, Any]
    model: VtcForConditionalGeneration
    processor: VtcProcessor
    encoder: EncoderSource
    llm: LlmSource


def save_run(
    folder: str | Path,
    model: VtcForConditionalGeneration,
    processor: VtcProcessor,
    *,
    encoder: EncoderSource,
    llm: LlmSource,
    stage: Stage,
    weights: Weights,
    seed: int,
    parent: str | None = None,
    train_log: Sequence[dict[str, Any]] = (),
    footer: Mapping[str, Any] | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write a run folder, whole or not at all, and return its manifest.

    With weights "compressor" only the compressor is saved, and the backbones stay where they are;
    with "full" the whole model. `parent` is the run_id that this one was trained from. The run_id
    names LLM, compressor, V, stage and seed, and ends in six hex digits of all that made the run,
    so that two runs that differ in anything else stay apart in scores. Raises InputError if the
    folder exists and `force` is not set.
    """
    folder = Path(folder)
    name = f"{llm.name}-{model.config.compressor}-v{model.compressor.visual_tokens}-{stage}-s{seed}"
    manifest = {
        "run_id": f"{name}-{_origin_hash(model.config, encoder, llm, parent, footer)}",
        "stage": stage,
        "weights": weights,
        "compressor": model.config.compressor,
        "visual_tokens": model.compressor.visual_tokens,
        "encoder": manifest_entry(encoder, folder),
        "llm": manifest_entry(llm, folder),
        "seed": seed,
        "parent": parent,
        "footer": dict(footer or {}),
    }
    with replacing_folder(folder, force) as staging:
        if weights == "full":
            model.save_pretrained(staging)
        else:
            model.config.save_pretrained(staging)
            tensors = {k: v.contiguous() for k, v in model.compressor.state_dict().items()}
            save_file(tensors, staging / COMPRESSOR_WEIGHTS, metadata={"format": "pt"})
        processor.save_pretrained(staging)
        write_rows(list(train_log), specs.TRAIN_LOG, staging / "train_log.parquet", footer=footer)
        text = json.dumps(manifest, indent=2, default=str)
        (staging / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return manifest


def _origin_hash(
    config: VtcConfig,
    encoder: EncoderSource,
    llm: LlmSource,
    parent: str | None,
    footer: Mapping[str, Any] | None,
) -> str:
    """Six hex digits of the backbones, the parent, the settings and the data of a training."""
    about = footer or {}
    data = [entry["sha256"] for entry in about.get("inputs", ())]
    origin = [
        encoder.fingerprint,
        llm.fingerprint,
        config.compressor_settings,
        parent,
        about.get("settings"),
        data,
    ]
    text = json.dumps(origin, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def load_run(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    encoder: Encoder | None = None,
    llm: Llm | None = None,
) -> Run:
    """Load a finished run, in eval mode.

    `encoder` and `llm` are backbones already loaded, used (and shared) in place of loading the
    ones that a compressor-only run names, if they are the same.

    Raises InputError if the folder is no finished run, its weights are damaged, or its backbones
    are gone or have changed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest["weights"] == "compressor":
        model, processor = _load_compressor_run(folder, manifest, dtype, encoder, llm)
    else:
        model, processor = _load_full_run(folder, dtype)
    return Run(
        folder,
        manifest,
        model.to(device).eval(),  # type: ignore[arg-type]
        processor,
        EncoderSource(**_fields(manifest["encoder"])),
        LlmSource(**_fields(manifest["llm"])),
    )


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """A run's manifest. Raises InputError if the folder is missing or no finished run."""
    folder = Path(folder)
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
    needed = {"run_id", "weights", "compressor", "visual_tokens", "encoder", "llm"}
    if not isinstance(manifest, dict) or needed - set(manifest):
        raise InputError(f"{path} is not a run's manifest; give the folder of a finished run")
    return manifest


def _load_compressor_run(
    folder: Path,
    manifest: dict[str, Any],
    dtype: torch.dtype,
    encoder: Encoder | None,
    llm: Llm | None,
) -> tuple[VtcForConditionalGeneration, VtcProcessor]:
    config = VtcConfig.from_pretrained(folder)
    built = assemble(
        _given_or_place(encoder, manifest["encoder"], folder),
        _given_or_place(llm, manifest["llm"], folder),
        manifest["compressor"],
        manifest["visual_tokens"],
        settings=config.compressor_settings,
        dtype=dtype,
    )
    try:
        weights = load_file(folder / COMPRESSOR_WEIGHTS)
        built.model.compressor.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"run {folder}: {COMPRESSOR_WEIGHTS} is damaged ({first})") from None
    return built.model, built.processor


def _given_or_place(given: Any, entry: dict[str, Any], folder: Path) -> Any:
    """A backbone already loaded if it is the run's own, else where the run's own stands."""
    if given is not None and given.source.fingerprint == entry["fingerprint"]:
        return given
    return locate(entry, folder)


def _load_full_run(
    folder: Path, dtype: torch.dtype
) -> tuple[VtcForConditionalGeneration, VtcProcessor]:
    try:
        model, found = VtcForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, output_loading_info=True
        )
        processor = VtcProcessor.from_pretrained(folder)
        processor.image_processor = load_image_processor(folder)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"run {folder}: its model is damaged ({first})") from None
    if found["missing_keys"]:
        lacking = min(found["missing_keys"])
        raise InputError(f"run {folder}: its model is damaged (it lacks {lacking})")
    return model, processor


def _fields(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "relative_path"}
