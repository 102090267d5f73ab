"""Samples over the tiny world's images, for training tests."""

import json
from pathlib import Path

from vtc.data.samples import Samples, read_samples
from vtc.model.assemble import assemble
from vtc.train.inputs import Inputs

COLOURS = ("red", "green", "blue", "yellow", "red blue", "green green")


def rows(n=24, questions=2, text_only=0):
    """LLaVA rows: the colour of image k % 6 is fixed, and asked in several ways.

    The last `text_only` of them have no image.
    """
    made = []
    for number in range(n):
        colour = COLOURS[number % 6]
        talk = []
        for k in range(questions):
            mark = "<image>\n" if k == 0 and number < n - text_only else ""
            talk.append({"from": "human", "value": f"{mark}What colour is it {k} ?"})
            talk.append({"from": "gpt", "value": colour if k == 0 else str(number % 6)})
        regions = [{"text": colour, "x": 0.1, "y": 0.2}, {"text": "circles", "x": 0.9, "y": 0.9}]
        made.append(
            {"id": str(number), "image": f"{number % 6}.png", "conversations": talk,
             "regions": regions}
        )  # fmt: skip
        if number >= n - text_only:
            del made[-1]["image"]
    return made


def write(folder: Path, **shape) -> Path:
    """The rows as a LLaVA JSON file."""
    file = folder / "samples.json"
    file.write_text(json.dumps(rows(**shape)))
    return file


def read(folder: Path, world, **shape) -> Samples:
    """The rows as samples of the tiny world."""
    return read_samples([write(folder, **shape)], world.images)


def build(world, visual_tokens=4, llm="qwen", seed=0):
    """A fresh model between the tiny world's backbones."""
    return assemble(world.encoder, getattr(world, llm), "tokenpacker", visual_tokens, seed=seed)


def collator(one, samples, settings):
    """Batches for a model, features in memory."""
    return Inputs(samples, settings).lm_collator(one.model, one.processor, one.encoder)
