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

from vtc.compress.serving import fed_name
from vtc.data.tokenizers import load_tokenizer
from vtc.errors import InputError
from vtc.model import adapters
from vtc.model import four_bit as bits
from vtc.model.assemble import assemble
from vtc.model.backbones import Encoder, Llm, load_image_processor, load_llm
from vtc.model.config import VtcConfig
from vtc.model.manifest import (
    MANIFEST,
    check_hashes,
    check_shapes,
    hashes_of,
    read_manifest,
    run_folder,
    shapes_of,
    write_manifest,
)
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.processor import VtcProcessor
from vtc.model.repeating import entering, repeat_at
from vtc.model.replacing import give_compressor
from vtc.model.sources import EncoderSource, LlmSource, folder_entry, locate, manifest_entry
from vtc.model.turns import trained_at
from vtc.tables import specs
from vtc.tables.atomic import replacing_folder
from vtc.tables.write import write_rows

COMPRESSOR_WEIGHTS = "compressor.safetensors"
CHAT_TEMPLATE = "chat_template.jinja"
Stage = Literal["projector", "finetune", "import"]
Weights = Literal["compressor", "adapter", "full"]


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
    model: Any,
    processor: VtcProcessor,
    *,
    encoder: EncoderSource,
    llm: LlmSource,
    stage: Stage,
    weights: Weights,
    seed: int | None,
    parent: str | None = None,
    base: Path | None = None,
    trained: Sequence[int] = (),
    train_log: Sequence[dict[str, Any]] = (),
    footer: Mapping[str, Any] | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write a run folder, whole or not at all, and return its manifest.

    With weights "compressor" only the compressor is saved, and the backbones stay where they are;
    with "adapter" the compressor and the LoRA weights of `model`, then PEFT's; with "full" the
    whole model. `parent` is the run_id that this one was trained from, `base` its folder where
    the LLM that LoRA adapts is the run's own and no backbone. `trained` are the V of a training
    elsewhere, in place of those of the model's config. The run_id names LLM, compressor,
    V, stage and seed, and ends in six hex digits of all that made the run, so that two runs
    that differ in anything else stay apart in scores. Raises InputError if the folder exists
    and `force` is not set.
    """
    folder = Path(folder)
    core = model.get_base_model() if weights == "adapter" else model
    times = core.config.repeat_visual_tokens
    fed = fed_name(core.compressor.visual_tokens, times)
    name = f"{llm.name}-{core.config.compressor}-{fed}-{stage}"
    name += "" if seed is None else f"-s{seed}"
    manifest = {
        "run_id": f"{name}-{_origin_hash(core.config, encoder, llm, parent, footer)}",
        "stage": stage,
        "weights": weights,
        "quantisation": "nf4" if bits.is_four_bit(core) else None,
        "compressor": core.config.compressor,
        "visual_tokens": core.compressor.visual_tokens,
        "repeat_visual_tokens": times,
        "trained_visual_tokens": list(trained or trained_at(core)),
        "encoder": manifest_entry(encoder, folder),
        "llm": manifest_entry(llm, folder),
        "base": folder_entry(base, folder) if base else None,
        "shapes": shapes_of(core),
        "seed": seed,
        "parent": parent,
        "footer": dict(footer or {}),
    }
    return write_run(folder, model, processor, manifest, train_log, force=force)


def write_run(
    folder: str | Path,
    model: Any,
    processor: VtcProcessor,
    manifest: Mapping[str, Any],
    train_log: Sequence[dict[str, Any]] = (),
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write a run folder of a given manifest, whole or not at all; the manifest with its files.

    `manifest["weights"]` says what of the model is saved. Raises InputError as `save_run`.
    """
    weights, footer = manifest["weights"], manifest["footer"]
    core = model.get_base_model() if weights == "adapter" else model
    with replacing_folder(folder, force) as staging:
        if weights == "full":
            model.save_pretrained(staging)
        else:
            core.config.save_pretrained(staging)
            tensors = {k: v.contiguous() for k, v in core.compressor.state_dict().items()}
            save_file(tensors, staging / COMPRESSOR_WEIGHTS, metadata={"format": "pt"})
        if weights == "adapter":
            adapters.save_adapter(model, staging)
        processor.save_pretrained(staging)
        write_rows(list(train_log), specs.TRAIN_LOG, staging / "train_log.parquet", footer=footer)
        whole = {**manifest, "files": hashes_of(staging)}
        write_manifest(whole, staging)
    return whole


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
    four_bit: bool | None = None,
    merge: bool | None = None,
) -> Run:
    """Load a finished run from its folder, or from the hub's hf://ORG/NAME, in eval mode.

    `encoder` and `llm` are backbones already loaded, used (and shared) in place of loading the
    ones that a run without them names, if they are the same. `four_bit` says whether the LLM's
    linear layers are quantised (nf4) as they are read; without it, as in the run's training, and
    those of a QLoRA run always. `merge` turns 4 bits back into floating weights, and says whether
    LoRA's go into the LLM's own; without it they do as long as the LLM is not in 4 bits.

    Raises InputError if the folder is no finished run, its weights are damaged, or its backbones
    are gone or have changed.
    """
    folder = run_folder(folder)
    manifest = read_manifest(folder)
    check_hashes(manifest, folder)
    _check_config(folder)
    trained_so = manifest.get("quantisation") == "nf4"
    if four_bit is None or manifest["weights"] == "adapter":
        four_bit = bool(four_bit) or trained_so
    how = _How(dtype, device, bool(four_bit))
    if manifest["weights"] == "full":
        model, processor = _load_full_run(folder, how)
    else:
        model, processor = _load_on_base(folder, manifest, how, encoder, llm)
    if merge and how.four_bit:
        model = bits.dequantise(model, dtype)
    if manifest["weights"] == "adapter":
        model = adapters.attach(model, folder, not how.four_bit if merge is None else merge)
    check_shapes(model, manifest, folder)
    return Run(
        folder,
        manifest,
        model.to(device).eval(),  # type: ignore[arg-type]
        processor,
        EncoderSource(**_fields(manifest["encoder"])),
        LlmSource(**_fields(manifest["llm"])),
    )


def is_part(run: Any) -> bool:
    """Whether a folder is a finished run without the whole model's weights."""
    if not isinstance(run, str | Path) or not (run_folder(run) / MANIFEST).is_file():
        return False
    return read_manifest(run)["weights"] != "full"


def check_speaks(run: str | Path) -> None:
    """Raise InputError for a run whose LLM has no chat template: it was trained without one."""
    folder = run_folder(run)
    if (folder / CHAT_TEMPLATE).is_file() or load_tokenizer(folder).chat_template:
        return
    raise InputError(
        f"run {run}: its LLM has no chat template; give one to 'vtc finetune' with "
        "--chat-template, such as vicuna"
    )


@dataclass(frozen=True)
class _How:
    """How weights are read: floating type, device, and whether the LLM's become 4-bit ones."""

    dtype: torch.dtype
    device: str | torch.device
    four_bit: bool


def _load_on_base(
    folder: Path,
    manifest: dict[str, Any],
    how: _How,
    encoder: Encoder | None,
    llm: Llm | None,
) -> tuple[VtcForConditionalGeneration, VtcProcessor]:
    """The backbones, or the whole run, that a run stands on, with the run's own compressor.

    Images and prompts are made as this run's folder says, whatever it stands on.
    """
    config = VtcConfig.from_pretrained(folder)
    if manifest.get("base"):
        model, processor = _load_full_run(Path(locate(manifest["base"], folder)), how)
        give_compressor(model, config)
        processor.visual_tokens = entering(model)
    else:
        built = assemble(
            _given_or_place(encoder, manifest["encoder"], folder),
            _llm_of(llm, manifest["llm"], folder, how),
            manifest["compressor"],
            manifest["visual_tokens"],
            settings=config.compressor_settings,
            dtype=how.dtype,
        )
        model, processor = built.model, built.processor
        repeat_at(model, processor, config.repeat_visual_tokens)
    try:
        model.compressor.load_state_dict(load_file(folder / COMPRESSOR_WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"run {folder}: {COMPRESSOR_WEIGHTS} is damaged ({first})") from None
    _as_saved(processor, folder)
    return model, processor


def _check_config(folder: Path) -> None:
    """Raise InputError without a config: transformers would build its default LLM, of 7B."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict) or not {"text_config", "vision_config"} <= set(config):
        raise InputError(f"run {folder}: its config.json is missing or damaged; copy the run again")


def _as_saved(processor: VtcProcessor, folder: Path) -> None:
    """Make images and prompts as the processor's files in `folder` say."""
    settings, _ = VtcProcessor.get_processor_dict(str(folder))
    template = folder / CHAT_TEMPLATE
    processor.set_up(
        query_position=settings.get("query_position", "after"),
        query_scope=settings.get("query_scope"),
        chat_template=str(template) if template.is_file() else None,
    )
    processor.image_processor = load_image_processor(folder)


def _llm_of(given: Llm | None, entry: dict[str, Any], folder: Path, how: _How) -> Llm:
    """The run's LLM: the one at hand if it is the same and as quantised as asked, else loaded."""
    found = _given_or_place(given, entry, folder)
    if isinstance(found, Llm) and bits.is_four_bit(found.model) == how.four_bit:
        return found
    place = locate(entry, folder)
    template = folder / CHAT_TEMPLATE
    return load_llm(
        place,
        how.dtype,
        four_bit=how.four_bit,
        device=how.device,
        chat_template=str(template) if template.is_file() else None,
        speaks=False,
    )


def _given_or_place(given: Any, entry: dict[str, Any], folder: Path) -> Any:
    """A backbone already loaded if it is the run's own, else where the run's own stands."""
    if given is not None and given.source.fingerprint == entry["fingerprint"]:
        return given
    return locate(entry, folder)


def _load_full_run(folder: Path, how: _How) -> tuple[VtcForConditionalGeneration, VtcProcessor]:
    quantising = bits.loading(how.dtype, how.device) if how.four_bit else {}
    try:
        model, found = VtcForConditionalGeneration.from_pretrained(
            folder, dtype=how.dtype, output_loading_info=True, **quantising
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
