"""Recipes: TOML files that hold a training whole, both stages, its models and its data."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtc.cost.data import DataFacts, counted, stated
from vtc.errors import InputError

STAGES = ("train-projector", "finetune")
_JOB_KEYS = {"llm", "gpu", *STAGES}


@dataclass(frozen=True)
class Planned:
    """One stage of a recipe with one LLM: the flags of its command, as the file states them.

    It has a run for each compressor, V and seed of stage 1. `turns` are stage 1's V of an elastic
    training, as the file has them, which stage 2 goes on with, and `repeats` how often stage 1
    feeds its visual tokens.
    """

    recipe: str
    command: str
    llm: str
    encoder: str
    compressors: tuple[str, ...]
    visual_tokens: tuple[int, ...]
    n_seeds: int
    compressor_settings: tuple[str, ...]
    turns: Any
    repeats: Any
    flags: dict[str, Any]
    data: DataFacts
    gpu: str | None


def read_recipes(sources: Iterable[str | Path]) -> list[Planned]:
    """The stages of all recipes, each LLM in turn; a folder stands for the recipes in it.

    A recipe has a table of flags for a command, `[train-projector]` and, if wanted, `[finetune]`;
    statistics of its data in `[data.train-projector]` and `[data.finetune]`; and, for several LLMs,
    `[[job]]` with `llm`, the `gpu` it is meant for, and flags of its own for either command. A
    stage that two recipes share is there once.

    Raises InputError naming the file for one that cannot be read or lacks something.
    """
    found: list[Planned] = []
    for path in _files(sources):
        for one in _read(path):
            if not any(_same(one, other) for other in found):
                found.append(one)
    return found


def _files(sources: Iterable[str | Path]) -> list[Path]:
    files = []
    for source in map(Path, sources):
        inside = sorted(source.glob("*.toml")) if source.is_dir() else [source]
        if not inside:
            raise InputError(f"{source}: no recipe (*.toml) in this folder")
        files += inside
    return files


def _read(path: Path) -> list[Planned]:
    try:
        with open(path, "rb") as file:
            recipe = tomllib.load(file)
    except FileNotFoundError:
        raise InputError(f"recipe {path} does not exist") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path} is not valid TOML ({error})") from None
    _check_keys(recipe, path)
    models = _models(recipe, path)
    data = {
        stage: _data(recipe, stage, path) for stage in STAGES if isinstance(recipe.get(stage), dict)
    }
    return [
        Planned(
            recipe=str(path),
            command=stage,
            llm=job["llm"],
            **models,
            flags={**recipe[stage], **job.get(stage, {})},
            data=data[stage],
            gpu=job.get("gpu"),
        )
        for job in _jobs(recipe, path)
        for stage in data
    ]


def _check_keys(recipe: Mapping[str, Any], path: Path) -> None:
    for key, value in recipe.items():
        kind = list if key == "job" else dict
        if key not in ("data", "job", *STAGES) or not isinstance(value, kind):
            raise InputError(
                f"recipe {path}: '{key}' does not belong there; a recipe has [train-projector], "
                "[finetune], [data.train-projector], [data.finetune] and [[job]]"
            )
    for stage in recipe.get("data", {}):
        if stage not in STAGES:
            raise InputError(f"recipe {path}: [data.{stage}] is of no command; use {STAGES}")
    if "train-projector" not in recipe:
        raise InputError(f"recipe {path}: no [train-projector], which names encoder and compressor")


def _models(recipe: Mapping[str, Any], path: Path) -> dict[str, Any]:
    first = recipe["train-projector"]
    tokens = first.get("visual-tokens", first.get("visual_tokens"))
    encoder, compressors = first.get("encoder"), _listed(first.get("compressor", "tokenpacker"))
    for name, value in (("encoder", encoder), ("compressor", "".join(compressors))):
        if not (isinstance(value, str) and value):
            raise InputError(f"recipe {path}: [train-projector] names no {name}")
    numbers = [int(part) if part.isdigit() else 0 for part in _listed(tokens)]
    if not numbers or not all(numbers):
        raise InputError(f"recipe {path}: [train-projector] states no visual-tokens such as [1, 4]")
    return {
        "encoder": encoder,
        "compressors": compressors,
        "visual_tokens": tuple(numbers),
        "n_seeds": len(_listed(first.get("seed", 0))),
        "compressor_settings": _settings(first),
        "turns": first.get("train-visual-tokens", first.get("train_visual_tokens")),
        "repeats": first.get("repeat-visual-tokens", first.get("repeat_visual_tokens")),
    }


def _settings(first: Mapping[str, Any]) -> tuple[str, ...]:
    """`compressor-setting`, an array of texts such as layers=2; another value is no flag's."""
    value = first.get("compressor-setting", first.get("compressor_setting", ()))
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _listed(value: Any) -> tuple[str, ...]:
    """The parts of a flag that takes several: an array, or text with commas."""
    if value is None:
        return ()
    parts = value if isinstance(value, list) else str(value).split(",")
    return tuple(str(part).strip() for part in parts)


def _jobs(recipe: Mapping[str, Any], path: Path) -> Sequence[Mapping[str, Any]]:
    jobs = recipe.get("job") or [{"llm": recipe["train-projector"].get("llm")}]
    for job in jobs:
        unknown = set(job) - _JOB_KEYS
        if unknown:
            raise InputError(f"recipe {path}: [[job]] has no key '{min(unknown)}'; {_JOB_KEYS}")
        if not isinstance(job.get("llm"), str):
            raise InputError(
                f"recipe {path}: no llm; name it in [train-projector] or, several, in [[job]]"
            )
    return jobs


def _data(recipe: Mapping[str, Any], stage: str, path: Path) -> DataFacts:
    table = recipe.get("data", {}).get(stage)
    where = f"recipe {path}, [data.{stage}]"
    if not isinstance(table, dict):
        raise InputError(f"{where} is missing; state rows, text-tokens, ... or samples = FILE")
    if "samples" not in table:
        return stated(table, where)
    from vtc.tables.read import read_rows
    from vtc.tables.specs import SAMPLES

    rows = read_rows(path.parent / str(table["samples"]), SAMPLES).rows
    if not rows:
        raise InputError(f"{where}: {table['samples']} has no rows")
    return counted(rows, str(recipe[stage].get("template", "")))


def _same(one: Planned, other: Planned) -> bool:
    """Whether two stages would train the very same runs."""
    first, second = (
        {**vars(plan), "recipe": "", "gpu": None, "flags": _by_global_batch(plan.flags)}
        for plan in (one, other)
    )
    return first == second and one.command == "train-projector"


def _by_global_batch(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags with the global batch alone: how it is cut makes no other training."""
    rest = dict(flags)
    rows, times = rest.pop("batch-size", None), rest.pop("accumulate", None)
    whole = rows * times if isinstance(rows, int) and isinstance(times, int) else (rows, times)
    return {**rest, "global batch": whole}
