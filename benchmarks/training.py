"""Both training stages against plain transformers, on the same data, model and batches.

    python benchmarks/training.py                      # the table of docs/performance.md
    python benchmarks/training.py --vocabulary 152064 --visual-tokens 1 --stages finetune

Plain is Trainer on LlavaForConditionalGeneration with vtc's compressor (avgpool) for its projector:
random order, padded batches, the encoder at every step, logits at every position. CPU seconds of
one epoch and the peak of memory above the loaded process, each in a forked process; the models'
losses on one batch are compared first. Linux.
"""

import argparse
import copy
import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from training_world import make_world
from transformers import LlavaConfig, LlavaForConditionalGeneration, Trainer

from vtc.compress.interface import VisionFeatures
from vtc.data.labels import IGNORE
from vtc.data.samples import read_samples
from vtc.model.assemble import Assembled, assemble
from vtc.model.backbones import load_encoder
from vtc.model.encode import layout_of, write_encoded
from vtc.train import inputs as inputs_module
from vtc.train.image_sources import Pixels
from vtc.train.inputs import Inputs
from vtc.train.settings import FINETUNE, PROJECTOR, StageSettings
from vtc.train.stages import freeze_all_but_compressor, unfreeze_for_finetune
from vtc.train.trainer import VtcTrainer, fit_model, training_arguments

BATCH = 4
STAGES = {"projector": PROJECTOR, "finetune": FINETUNE}


class Projector(nn.Module):
    """A compressor where LLaVA's projector stands."""

    def __init__(self, compressor: Any):
        super().__init__()
        self.compressor = compressor

    def forward(self, image_features: torch.Tensor) -> torch.Tensor:
        """[I, N, D] -> [I, V, text_width]."""
        levels = {self.compressor.level: image_features}
        return self.compressor(VisionFeatures(levels, self.compressor.grid))


def plain_model(one: Assembled) -> LlavaForConditionalGeneration:
    """transformers' Llava around the same backbones and compressor."""
    config: Any = one.model.config
    llava = LlavaConfig(
        vision_config=config.vision_config, text_config=config.text_config,
        image_token_index=config.image_token_index, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(llava)
    model.model.vision_tower = one.model.model.vision_tower
    model.model.language_model = one.model.model.language_model
    model.model.multi_modal_projector = Projector(one.model.compressor)  # type: ignore[assignment]
    model.lm_head = one.model.lm_head
    return model


class PlainCollator:
    """Rows padded to the longest, with pixels, mask and labels, as LLaVA's collator makes them."""

    def __init__(self, ours: Any, pixels: Pixels):
        self.ours, self.pixels = ours, pixels

    def __call__(self, indices: list[int]) -> dict[str, Any]:
        """A batch as transformers' Llava takes it."""
        rows = [self.ours.dataset.rows[index] for index in indices]
        encoded = [row.tokens.encode(self.ours.n_visual) for row in rows]
        pad = nn.utils.rnn.pad_sequence
        ids = [torch.from_numpy(row.input_ids) for row in encoded]
        labels = [torch.from_numpy(row.labels) for row in encoded]
        return {
            "input_ids": pad(ids, batch_first=True, padding_value=self.ours.pad_token_id),
            "attention_mask": pad([torch.ones_like(row) for row in ids], batch_first=True),
            "labels": pad(labels, batch_first=True, padding_value=IGNORE),
            **self.pixels([path for row in rows for path in row.images]),
        }


class PlainTrainer(Trainer):
    """Trainer as it comes."""


def timed(trainer_class: type, result: dict[str, Any]) -> type:
    """A Trainer class that puts the CPU seconds and the peak memory of `train` into `result`."""

    class Timed(trainer_class):
        def train(self, *args: Any, **kwargs: Any) -> Any:
            # Weights are mapped from their files: what was never read is not in memory yet.
            sum(float(weight.detach().sum()) for weight in self.model.parameters())
            Path("/proc/self/clear_refs").write_text("5")
            before, start = _memory("VmRSS"), time.process_time()
            trained = super().train(*args, **kwargs)
            result["seconds"] = time.process_time() - start
            result["memory"] = _memory("VmHWM") - before
            return trained

    return Timed


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def prepare(world: Path, stage: str, visual_tokens: int, features: Path | None) -> tuple:
    """A fresh model, our collator over the stage's samples, and its settings."""
    settings: StageSettings = STAGES[stage].with_(batch_size=BATCH, accumulate=1, log_every=1000)
    one = assemble(world / "encoder", world / "llm", "avgpool", visual_tokens)
    name = "pretrain" if stage == "projector" else "finetune"
    samples = read_samples([world / f"{name}.json"], world / "images")
    inputs = Inputs(samples, settings, features)
    collator = inputs.lm_collator(one.model, one.processor, one.encoder)
    freeze = freeze_all_but_compressor if stage == "projector" else unfreeze_for_finetune
    freeze(one.model)
    return one, collator, settings


def run_plain(world: Path, stage: str, visual_tokens: int, result: dict[str, Any]) -> None:
    """One epoch of plain transformers."""
    one, ours, settings = prepare(world, stage, visual_tokens, None)
    model = plain_model(one)
    collator = PlainCollator(ours, Pixels(world / "images", one.processor.image_processor))
    with torch.no_grad():
        left = model(**collator([0, 1])).loss
        right = one.model(**ours([0, 1])).loss
    assert abs(float(left - right)) < 1e-4, (left, right)
    arguments = training_arguments(settings, world / "scratch")
    trainer = timed(PlainTrainer, result)(
        model=model, args=arguments, train_dataset=ours.dataset, data_collator=collator
    )
    trainer.train()


def run_ours(
    world: Path,
    stage: str,
    visual_tokens: int,
    result: dict[str, Any],
    features: Path | None,
    count: bool = False,
) -> None:
    """One epoch of vtc: with a feature cache, or with the encoder at every step."""
    one, collator, settings = prepare(world, stage, visual_tokens, features)
    result["flops"] = float("nan")
    if count:
        result["flops"] = step_flops(copy.deepcopy(one.model), collator)
    fit_model(
        one.model, collator.dataset, collator, settings, world / "scratch",
        trainer_class=timed(VtcTrainer, result),
    )  # fmt: skip


def step_flops(model: Any, collator: Any) -> int:
    """FLOPs of all batches, forward and backward, as torch counts them; padding left out."""
    with FlopCounterMode(display=False) as counter:
        for index in range(len(collator.dataset)):
            model(**collator([index])).loss.backward()
    return counter.get_total_flops()


def forked(work: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """What `work` puts into its result, run in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        result: dict[str, Any] = {}
        try:
            work(result)
        except BaseException:
            traceback.print_exc()
        finally:
            os.write(write, json.dumps(result).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told)


def measure(world: Path, stage: str, visual_tokens: int, count: bool) -> dict[str, Any]:
    """Plain, ours, and ours with the cache, for one stage and V."""
    features = world / "features"
    return {
        "plain": forked(lambda result: run_plain(world, stage, visual_tokens, result)),
        "ours": forked(lambda result: run_ours(world, stage, visual_tokens, result, None, count)),
        "cached": forked(lambda result: run_ours(world, stage, visual_tokens, result, features)),
    }


def report(
    vocabulary: int, stage: str, visual_tokens: int, samples: int, found: dict[str, Any]
) -> None:
    """One line of the table."""
    plain, ours, cached = (found[name] for name in ("plain", "ours", "cached"))
    rate = ours["flops"] / ours["seconds"] / 1e9
    print(
        f"| {vocabulary} | {stage} | {visual_tokens} | {samples / plain['seconds']:.2f} "
        f"| {samples / ours['seconds']:.2f} | {plain['seconds'] / ours['seconds']:.2f} "
        f"| {plain['seconds'] / cached['seconds']:.2f} | {plain['memory'] / 1e6:.0f} "
        f"| {ours['memory'] / plain['memory']:.2f} | {rate:.1f} |",
        flush=True,
    )


def main() -> None:
    """Measure every combination asked, and print a line of a Markdown table each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=_numbers, default=[152064, 2048])
    parser.add_argument("--visual-tokens", type=_numbers, default=[576, 144, 16, 1])
    parser.add_argument("--stages", type=lambda text: text.split(","), default=list(STAGES))
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--encoder", type=_numbers, default=[4, 64], help="layers, width")
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--flops", action="store_true", help="count them: twice the time")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    inputs_module.MEMORY_LIMIT = 0  # Without a cache the encoder shall run at every step.
    print("| vocabulary | stage | V | plain samples/s | vtc samples/s | x | x with the cache "
          "| plain peak MB | peak, vtc / plain | vtc GFLOP/s |")  # fmt: skip
    print("|" + "---|" * 10)
    for vocabulary in asked.vocabulary:
        with tempfile.TemporaryDirectory() as folder:
            world = Path(folder)
            make_world(world, vocabulary, asked.samples, asked.width, tuple(asked.encoder))
            encoder = load_encoder(world / "encoder")
            names = [f"{number}.jpg" for number in range(asked.samples)]
            layout = layout_of(encoder, [-2], "fp16")
            write_encoded(world / "features", encoder, world / "images", names, layout)
            for stage in asked.stages:
                for visual_tokens in asked.visual_tokens:
                    found = measure(world, stage, visual_tokens, asked.flops)
                    report(vocabulary, stage, visual_tokens, asked.samples, found)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
