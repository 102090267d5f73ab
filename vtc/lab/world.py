"""Writing a miniature world: images, conversations, benchmarks and backbones, from a seed."""

import csv
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vtc.lab import backbones, conversations, documents, facts, questions, rendering, scenes
from vtc.lab.backbones import Progress, Source
from vtc.lab.facts import Facts
from vtc.lab.pages import Pages
from vtc.lab.presets import Preset
from vtc.tables.atomic import replacing_folder

KINDS = ("scene", "document")
_BENCHMARKS = {"scene": "reasoning", "document": "ocr"}
_BATCH = 256


def write_world(
    out: str | Path,
    preset: Preset,
    source: Source,
    *,
    force: bool = False,
    progress: Progress = backbones.silent,
) -> dict[str, Any]:
    """Write a world to the folder `out`, whole or not at all; returns what world.json holds.

    The same preset, seed and library versions give the same bytes. Raises InputError if `out`
    exists and `force` is not set, or if backbones would have to be trained unasked.
    """
    source.check(preset)
    known = facts.make(
        source.seed,
        colour_zipf=preset.colour_zipf,
        role_zipf=preset.role_zipf,
        colour_share=preset.colour_share,
    )
    with replacing_folder(out, force) as folder:
        llms = backbones.save_all(folder, preset, known, source, progress)
        _write_csv(folder / "llms.csv", llms)
        counts = _write_training_set(folder, preset, known, source.seed, progress)
        counts |= _write_benchmarks(folder, preset, known, source.seed, progress)
        about = {
            "preset": preset.name,
            "seed": source.seed,
            "encoder_objective": source.objective,
            "backbones": "shipped" if source.ships(preset) else "trained",
            "counts": counts,
            "llms": llms,
            "settings": asdict(preset),
            "sha256": _hashes(folder),
        }
        (folder / "world.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return about


def sample(kind: str, rng: np.random.Generator, n_images: int, known: Facts) -> Pages:
    """Pages of a kind: scene or document."""
    if kind == "scene":
        return scenes.sample(rng, n_images, known)
    return documents.sample(rng, n_images)


def ask(kind: str, rng: np.random.Generator, pages: Pages, known: Facts, n: int) -> np.ndarray:
    """Questions [B, m, 4] about pages of a kind, enough that `n` distinct ones are found if any."""
    if kind == "scene":
        return questions.about_scenes(rng, pages, known, 3 * n)
    return questions.about_documents(rng, pages, n)


def _write_training_set(
    folder: Path, preset: Preset, known: Facts, seed: int, progress: Progress
) -> dict[str, int]:
    """images/train/, pretrain.json and finetune.json, over the same images."""
    rng = np.random.default_rng([seed, 4])
    pretrain, finetune = [], []
    for kind in KINDS:
        pages = sample(kind, rng, preset.train_images, known)
        paths = _draw(folder, f"train/{kind}", pages, rng, preset, progress)
        asked = ask(kind, rng, pages, known, preset.questions)
        told = questions.captions(rng, pages)
        for index, path in enumerate(paths):
            name = f"{kind}-{index:05d}"
            pretrain.append(conversations.pretraining_row(name, path, pages, index, told[index]))
            finetune.append(
                conversations.finetuning_row(name, path, asked[index], preset.questions)
            )
    _write_json(folder / "pretrain.json", pretrain)
    _write_json(folder / "finetune.json", finetune)
    turns = sum(len(row["conversations"]) for row in finetune)
    return {"train_images": len(finetune), "train_questions": turns // 2}


def _write_benchmarks(
    folder: Path, preset: Preset, known: Facts, seed: int, progress: Progress
) -> dict[str, int]:
    """images/test/ and, for each kind of page, benchmarks/<task>.toml with its rows."""
    rng = np.random.default_rng([seed, 5])
    (folder / "benchmarks").mkdir()
    counts = {}
    for kind in KINDS:
        pages = sample(kind, rng, preset.test_images, known)
        paths = _draw(folder, f"test/{kind}", pages, rng, preset, progress)
        asked = ask(kind, rng, pages, known, preset.test_questions)
        rows = []
        for index, path in enumerate(paths):
            name = f"{kind}-{index:05d}"
            rows += conversations.benchmark_rows(name, path, asked[index], preset.test_questions)
        task = _BENCHMARKS[kind]
        _write_json(folder / "benchmarks" / f"{task}.json", rows)
        (folder / "benchmarks" / f"{task}.toml").write_text(_TOML.format(task=task))
        counts[f"{task}_items"] = len(rows)
    return counts


_TOML = """\
name = "lab-{task}"
task = "{task}"
rows = "{task}.json"
images = "../images"
metric = "exact_match"
max_new_tokens = 2

[columns]
id = "id"
image = "image"
question = "question"
answers = "answers"
"""


def _draw(
    folder: Path,
    name: str,
    pages: Pages,
    rng: np.random.Generator,
    preset: Preset,
    progress: Progress,
) -> list[str]:
    """Draw pages as PNG files under images/<name>/; returns their paths below images/."""
    (folder / "images" / name).mkdir(parents=True)
    paths = [f"{name}/{index:05d}.png" for index in range(len(pages))]
    with progress(f"drawing {name}", len(pages)) as advance:
        for start in range(0, len(pages), _BATCH):
            some = slice(start, start + _BATCH)
            batch = Pages(pages.cells[some], pages.content[some], pages.counts[some])
            pictures = rendering.draw(batch, rng, preset.camera)
            for path, picture in zip(paths[some], pictures, strict=True):
                file = folder / "images" / path
                Image.fromarray(picture).save(file, compress_level=1)
                advance()
    return paths


def _write_json(path: Path, rows: list[dict]) -> None:
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the images, whose bytes together make one hash."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    images = hashlib.sha256()
    hashes = {}
    for file in files:
        content = file.read_bytes()
        if file.suffix == ".png":
            images.update(content)
        else:
            hashes[file.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return hashes | {"images": images.hexdigest()}
