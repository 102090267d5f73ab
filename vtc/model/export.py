"""Runs in other forms: one whole model without LoRA, and the format of transformers' own Llava."""

from pathlib import Path
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from vtc.compress.serving import repeats_of
from vtc.errors import InputError
from vtc.model.manifest import read_manifest, shapes_of
from vtc.model.run import Run, load_run, write_run
from vtc.model.sources import manifest_entry
from vtc.model.tower import class_tokens
from vtc.tables import specs
from vtc.tables.atomic import refuse_existing, replacing_folder
from vtc.tables.read import read_rows

PARTS_TO_TEXT = (
    "{%- set ns = namespace(turns=[]) -%}"
    "{%- for m in messages -%}"
    "{%- if m['content'] is string -%}{%- set ns.turns = ns.turns + [m] -%}"
    "{%- else -%}{%- set ns.text = '' -%}"
    "{%- for part in m['content'] -%}"
    "{%- if part['type'] == 'image' -%}{%- set ns.text = ns.text + '<image>\\n' -%}"
    "{%- else -%}{%- set ns.text = ns.text + part['text'] -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- set ns.turns = ns.turns + [{'role': m['role'], 'content': ns.text}] -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- set messages = ns.turns -%}{{- '' }}"
)
"""Put before an LLM's chat template, which knows texts alone: images and texts of a turn, as
multimodal programs pass them, become the text that vtc trains on."""


def merge(run: str | Path, out: str | Path, *, dtype: torch.dtype, force: bool = False) -> None:
    """Write a run as one whole model: backbones, compressor, and LoRA merged into the LLM.

    4-bit weights of a QLoRA run become floating ones first: the merged model is what was trained,
    not what was loaded. The new run goes on under the name of the old one and `-whole`.

    Raises InputError for a run at fault or a folder that exists.
    """
    refuse_existing(out, force, folder=True)
    manifest = read_manifest(run)
    loaded = load_run(run, dtype=dtype, merge=True)
    about = {
        **manifest,
        "run_id": f"{manifest['run_id'].removesuffix('-whole')}-whole",
        "weights": "full",
        "quantisation": None,
        "base": None,
        "encoder": manifest_entry(loaded.encoder, Path(out)),
        "llm": manifest_entry(loaded.llm, Path(out)),
        "shapes": shapes_of(loaded.model),
    }
    log = read_rows(loaded.folder / "train_log.parquet", specs.TRAIN_LOG, empty=True)
    write_run(out, loaded.model, loaded.processor, about, log.rows, force=force)


def to_hf_llava(
    run: str | Path, out: str | Path, *, dtype: torch.dtype, force: bool = False
) -> None:
    """Write a run of the MLP projector as transformers' Llava, which needs no vtc to load.

    Config, weights and processor are Llava's own; the chat template also takes turns made of
    images and texts. Raises InputError, naming the reason, for a run that is no LLaVA.
    """
    refuse_existing(out, force, folder=True)
    _check_name(read_manifest(run), run)
    loaded = load_run(run, dtype=dtype, merge=True)
    strategy = _select_strategy(loaded)
    model = _as_llava(loaded.model, strategy)
    processor = _llava_processor(loaded, strategy)
    with replacing_folder(out, force) as staging:
        model.save_pretrained(staging)
        processor.save_pretrained(staging)


def _check_name(manifest: dict[str, Any], run: str | Path) -> None:
    if manifest["compressor"] != "mlp":
        raise InputError(
            f"run {run}: transformers' Llava has no {manifest['compressor']} compressor; only runs "
            "of the mlp projector are LLaVA. 'vtc export --merge' writes any run whole"
        )
    times = repeats_of(manifest)
    if times > 1:
        raise InputError(
            f"run {run} feeds its LLM each visual token {times} times, transformers' Llava once; "
            "'vtc export --merge' writes any run whole"
        )


def _select_strategy(run: Run) -> str:
    """How Llava gets at the patches: past one class token, or all of the encoder's states."""
    n_before = class_tokens(run.model.model.vision_tower, run.model.model.grid)
    if n_before > 1:
        raise InputError(
            f"run {run.folder}: its encoder puts {n_before} tokens before the patches; "
            "transformers' Llava can leave out one at most"
        )
    if run.processor.query_position != "after":
        raise InputError(
            f"run {run.folder} was trained with the query before the image, which transformers' "
            "Llava has no place for in its chat template"
        )
    return "default" if n_before else "full"


def _as_llava(model: Any, strategy: str) -> Any:
    """The same tensors in transformers' class: with the MLP, names and shapes are the same."""
    config, level = model.config, model.compressor.level
    described = LlavaConfig(
        vision_config=config.vision_config,
        text_config=config.text_config,
        image_token_index=config.image_token_index,
        image_seq_length=model.compressor.visual_tokens,
        vision_feature_layer=level - (config.vision_config.num_hidden_layers + 1),
        vision_feature_select_strategy=strategy,  # type: ignore[arg-type]
        tie_word_embeddings=config.tie_word_embeddings,
        dtype=model.dtype,
    )
    with torch.device("meta"):
        llava = LlavaForConditionalGeneration(described)
    llava.load_state_dict(model.state_dict(), assign=True)
    llava.tie_weights()
    llava.generation_config = model.generation_config
    return llava


def _llava_processor(run: Run, strategy: str) -> LlavaProcessor:
    ours, vision = run.processor, run.model.model.vision_tower.config
    template = str(ours.chat_template).removeprefix(PARTS_TO_TEXT) if ours.chat_template else None
    return LlavaProcessor(
        image_processor=ours.image_processor,
        tokenizer=ours.tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1 if strategy == "default" else 0,
        chat_template=template and PARTS_TO_TEXT + template,
    )
