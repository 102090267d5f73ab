"""The world's backbones: trained from the seed, or taken from those shipped; saved as folders."""

import json
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionModel, PreTrainedModel, Qwen2ForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from vtc.errors import InputError
from vtc.lab import encoder, language, rendering, tokenizer
from vtc.lab.facts import Facts
from vtc.lab.presets import LlmSize, Preset

SHIPPED = Path(__file__).parent / "shipped"
SHIPPED_SEED = 0
FAMILY = "mini"


@dataclass(frozen=True)
class Source:
    """Where backbones come from: all trained here, or the shipped ones where they serve."""

    seed: int
    train: bool
    objective: str

    def ships(self, preset: Preset) -> bool:
        """Whether the shipped LLMs are this preset's of this seed."""
        return not self.train and self.seed == SHIPPED_SEED and preset.name != "tiny"

    def check(self, preset: Preset) -> None:
        """Raise InputError if backbones would have to be trained and nobody asked for it."""
        if preset.name == "tiny" or self.train:
            return
        if self.seed != SHIPPED_SEED:
            raise InputError(
                f"--seed {self.seed}: backbones are shipped for seed {SHIPPED_SEED} only; "
                "add --train-backbones to train this seed's (many minutes)"
            )
        if not (SHIPPED / "encoder").is_dir():
            raise InputError("no backbones are shipped with this copy; add --train-backbones")


Progress = Callable[..., Any]


def save_all(
    folder: Path, preset: Preset, facts: Facts, source: Source, progress: Progress
) -> list[dict[str, object]]:
    """Write encoder/ and llm/<name>/ under `folder`; returns a row of llms.csv for each LLM.

    `progress(description, total)` is a context manager that yields `advance()`.
    """
    save_encoder(folder / "encoder", preset, source, progress)
    rows = []
    for size in preset.sizes:
        model = _llm(size, preset, facts, source, progress)
        save_llm(folder / "llm" / size.name, model)
        rows.append({"model": size.name, "family": FAMILY, "n_params": nominal(model)})
    return rows


def nominal(model: PreTrainedModel) -> int:
    """The nominal N of a miniature LLM: its parameters without the word embedding.

    As in Kaplan et al. (arXiv 2001.08361, section 2.1): what each token's forward pass computes
    with. At this scale the embedding would be up to a third of the total.
    """
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    return sum(sizes.values()) - sizes["model.embed_tokens.weight"]


def save_encoder(folder: Path, preset: Preset, source: Source, progress: Progress) -> None:
    """Write the encoder, trained with `source.objective`, and its image processor."""
    if source.ships(preset) and source.objective == "both":
        model = CLIPVisionModel.from_pretrained(SHIPPED / "encoder", dtype=torch.float32)
    else:
        settings = preset.encoder.with_objective(source.objective)
        model = encoder.build(settings, source.seed)
        with progress("training the encoder", settings.steps) as advance:
            encoder.train(model, settings, source.seed, preset.camera, advance)
    model.save_pretrained(folder)
    pixels = {"height": rendering.IMAGE_PIXELS, "width": rendering.IMAGE_PIXELS}
    CLIPImageProcessorPil(
        do_resize=True,
        size=pixels,
        do_center_crop=False,
        crop_size=pixels,
        image_mean=[encoder.MEAN] * 3,
        image_std=[encoder.STD] * 3,
    ).save_pretrained(folder)


def _llm(
    size: LlmSize, preset: Preset, facts: Facts, source: Source, progress: Progress
) -> Qwen2ForCausalLM:
    if source.ships(preset):
        return Qwen2ForCausalLM.from_pretrained(SHIPPED / size.name, dtype=torch.float32)
    model = language.build(size, source.seed)
    with progress(f"training {size.name}", preset.language.steps) as advance:
        language.train(model, facts, preset.language, size.learning_rate, source.seed, advance)
    return model


def save_llm(folder: Path, model: Qwen2ForCausalLM) -> None:
    """Write an LLM, its family, its nominal N and its tokenizer as an ordinary folder."""
    model.config.family = FAMILY
    model.config.n_params_nominal = nominal(model)
    model.save_pretrained(folder)
    tokenizer.build().save_pretrained(folder)


@contextmanager
def silent(description: str, total: int):
    """A progress that shows nothing."""
    yield lambda: None


def ship(world: Path, folder: Path) -> int:
    """Store a world's backbones in half precision; returns the bytes of all files.

    What `vtc lab` ships is made of a world trained with --train-backbones, seed 0.
    """
    for name, kind in _folders(world):
        model = kind.from_pretrained(world / name, dtype=torch.float32)
        target = folder / Path(name).name
        model.half().save_pretrained(target)
        config = json.loads((target / "config.json").read_text())
        config["dtype"] = "float16"
        (target / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    files = [file for file in folder.rglob("*") if file.is_file()]
    for file in files:
        file.chmod(0o644)
    return sum(file.stat().st_size for file in files)


def _folders(world: Path) -> list[tuple[str, type[PreTrainedModel]]]:
    llms = sorted((world / "llm").iterdir())
    return [("encoder", CLIPVisionModel), *((f"llm/{p.name}", Qwen2ForCausalLM) for p in llms)]
