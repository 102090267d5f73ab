"""What `--dry-run` of a training command says of its costs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from vtc.commands import options


def costs(
    request: Any, runs: Sequence[tuple[Path, dict[str, Any]]], keep: int, n_seeds: int = 1
) -> list[str]:
    """Lines `estimate = ...`, one a run and one of all.

    `runs` are output folders, each with what `parts_of` takes, and as many of each of
    `n_seeds` seeds: those of stage 1 with one seed train side by side. Without a GPU (named, or in
    this machine) memory is that of a training on the CPU, and there are no hours.
    Raises InputError for a model that cannot be had or a GPU that is not known.
    """
    from vtc.commands.parts import parts_of, turns_of
    from vtc.cost.data import counted
    from vtc.cost.job import Job, estimate, side_by_side

    settings, gpu = request.settings, _gpu(request.gpu)
    first_stage = settings.stage == "projector"
    flags = {
        **settings.as_dict(),
        "lora_r": settings.lora.r,
        "lora_dropout": settings.lora.dropout,
        "features": request.features,
        "keep": keep,
    }
    jobs = [
        Job(
            "train-projector" if first_stage else "finetune",
            "",
            parts_of(**models),
            counted(request.samples.rows, settings.template),
            flags,
            **turns_of(models, settings.train_visual_tokens),
        )
        for _, models in runs
    ]
    if first_stage:
        jobs = side_by_side(jobs, n_seeds)
    rows = [estimate(job, gpu, on_gpu=gpu is not None) for job in jobs]
    lines = [_line(str(folder), row) for (folder, _), row in zip(runs, rows, strict=True)]
    return [*lines, _line("in all", _sum(rows))]


_NO_SETTINGS = ("help", "config", "dry_run", "gpu", "force", "resume")


def settings_lines(context: click.Context) -> list[str]:
    """The options of a command with the values they have, as TOML that `--config` takes.

    Left out are those without a value, and those that say how this one call goes (`--force`).
    """
    lines = []
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if not isinstance(option, click.Option) or option.name in _NO_SETTINGS or value is None:
            continue
        if isinstance(option.type, options.Setting):
            value = [f"{key}={_toml(setting)}" for key, setting in value]
        lines.append(f"{options.flag_key(option).replace('_', '-')} = {_toml(value)}")
    return lines


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, int | float):
        return repr(value)
    # JSON's escapes are TOML's, but for the one control character that JSON leaves as it is.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def models_of(run: Path, repeats: int | None = None) -> dict[str, Any]:
    """The models a run is made of, by the folders where they stand now.

    Its visual tokens are fed `repeats` times, or as often as the run was trained.

    Raises InputError if one is gone or has changed.
    """
    from vtc.compress.serving import repeats_of
    from vtc.model.run import read_manifest
    from vtc.model.sources import locate

    manifest = read_manifest(run)
    places = {part: locate(manifest[part], run) for part in ("encoder", "llm")}
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    return {
        **places,
        **{name: manifest[name] for name in ("compressor", "visual_tokens")},
        "settings": config.get("compressor_settings"),
        "repeats": repeats or repeats_of(manifest),
    }


def _gpu(name: str | None) -> Any:
    """The GPU named, else this machine's if the catalog has it, else None."""
    from vtc.catalog import gpus
    from vtc.errors import InputError

    if name:
        return gpus.find(name)
    import torch

    if not torch.cuda.is_available():
        return None
    try:
        return gpus.find(torch.cuda.get_device_name())
    except InputError:
        return None


def _sum(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All runs: what adds up, and the largest of what does not."""
    added = ("tokens", "flops", "disk_run", *(["gpu_hours"] if "gpu_hours" in rows[0] else []))
    largest = max(rows, key=lambda row: row["memory_peak"])
    checkpoints = max(row["disk_checkpoints"] for row in rows)
    total = {name: sum(row[name] for row in rows) for name in added}
    whole = {"disk_checkpoints": checkpoints, "trained_visual_tokens": None}
    return {**largest, **total, **whole}


def _line(what: str, row: dict[str, Any]) -> str:
    from vtc.tables.quantity import format_flops

    turns = row.get("trained_visual_tokens")
    what += f" ({turns} visual tokens)" if turns else ""
    parts = [f"{row['tokens']:,} tokens", format_flops(row["flops"])]
    memory = f"{row['memory_peak'] / 2**30:.2f} GiB of memory"
    if row.get("gpu"):
        parts.append(f"{row['gpu_hours']:.3g} hours of {row['gpu']} at {row['mfu']:.0%}")
        best = row["fitting_batch_size"]
        fits = f"fits with --batch-size {best}" if best else "does not fit"
        memory += " (fits)" if row["fits"] else f" ({fits})"
    disk = (row["disk_run"] + row["disk_checkpoints"]) / 1e6
    return f"estimate = {what}: {', '.join([*parts, memory, f'{disk:,.1f} MB of disk'])}"
