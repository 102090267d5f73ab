"""`vtc estimate`: what a recipe will take, before anything is downloaded or trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from vtc.commands import options, preflight

COLUMNS = (
    *("command", "llm", "method", "visual_tokens", "steps", "batch_size", "tokens"),
    *("flops", "gpu", "gpu_hours", "memory_gib", "fits", "fitting_batch_size", "disk_gb"),
)


@click.command("estimate")
@click.argument("recipes", nargs=-1, required=True, type=click.Path())
@click.option("--gpu", help="GPU, such as rtx4090 or a100-80gb. [default: each recipe's own]")
@click.option(
    "--mfu",
    type=options.Finite(0, 1, min_open=True),
    default=0.35,
    show_default=True,
    help="Share of the GPU's bf16 peak that the FLOPs truly needed reach.",
)
@options.output
def estimate(recipes, gpu, mfu, out, fmt, force) -> None:
    """State steps, tokens, FLOPs, GPU-hours, peak memory and disk of every run of a recipe.

    RECIPES are TOML files, or folders of them, with the flags of train-projector and finetune, the
    models and statistics of the data; no model and no data need be there. Memory is that of the
    longest batch. A stage that several recipes share counts once. Exits with 3 if no run fits.

    \b
    Example:
      vtc estimate recipes/paper/lora.toml --gpu rtx4090
      vtc estimate recipes/paper --format csv > costs.csv
    """
    from vtc import console
    from vtc.catalog import gpus
    from vtc.cost import job as costs
    from vtc.cost.recipe import read_recipes
    from vtc.errors import NoAnswerError
    from vtc.tables import specs, write

    chosen = write.check_output(out, fmt, force)
    named = gpus.find(gpu) if gpu else None
    rows = []
    for planned in read_recipes(recipes):
        card = named or (gpus.find(planned.gpu) if planned.gpu else None)
        rows += [costs.estimate(job, card, mfu) for job in jobs_of(planned)]
    if chosen == "table" and out == "-":
        console.print_table([_shown(row) for row in rows], COLUMNS)
    else:
        options.emit(rows, specs.ESTIMATE, out, fmt, force, footer=_footer(chosen, recipes, mfu))
    for line in _totals(rows, mfu):
        console.say(line)
    if not any(row.get("fits") is not False for row in rows):
        raise NoAnswerError(
            f"none of these runs fits {' or '.join(sorted({row['gpu'] for row in rows}))}; "
            "try a larger --gpu, qlora, or --gradient-checkpointing in the recipe"
        )


def flags_of(command: click.Command, given: dict[str, Any], where: str) -> dict[str, Any]:
    """All flags of a training command, those of a recipe over its defaults, by parameter name.

    Raises InputError naming `where` for a key that is no flag, or a value that is none of it.
    """
    from vtc.errors import InputError

    # Defaults alone: what is required may be missing. Click keeps the help option of the first
    # context a command gets, so it is given the names that all commands have.
    context = command.make_context(
        command.name, [], resilient_parsing=True, help_option_names=["-h", "--help"]
    )
    known = {option.lstrip("-"): param for param in command.params for option in param.opts}
    flags = dict(context.params)
    for key, value in given.items():
        param = known.get(key.replace("_", "-"))
        if param is None or isinstance(param, click.Argument):
            raise InputError(f"{where}: '{key}' is no option of {command.name}")
        try:
            flags[param.name or ""] = param.type_cast_value(context, value)
        except click.BadParameter as error:
            raise InputError(f"{where}: {key}: {error.message}") from None
    return flags


def jobs_of(planned: Any) -> list[Any]:
    """The runs of a stage of a recipe, for each seed, compressor and V, with all flags.

    Raises InputError naming the recipe.
    """
    from vtc.commands.finetune import finetune
    from vtc.commands.parts import parts_of, turns_of
    from vtc.commands.train_projector import train_projector
    from vtc.cost.job import Job, side_by_side
    from vtc.errors import InputError

    command = finetune if planned.command == "finetune" else train_projector
    settings = flags_of(command, planned.flags, f"recipe {planned.recipe}, [{planned.command}]")
    try:
        own = preflight.check_settings(
            planned.compressors, map(options.Setting(), planned.compressor_settings)
        )
        asked = settings["train_visual_tokens"] or planned.turns
        asked = asked and options.Turns().convert(asked, None, None)
        repeats = settings["repeat_visual_tokens"] or planned.repeats
        repeats = click.IntRange(1).convert(repeats or 1, None, None)
        models = [
            {"encoder": planned.encoder, "llm": planned.llm, "compressor": compressor,
             "visual_tokens": tokens, "settings": own, "repeats": repeats}
            for compressor in planned.compressors
            for tokens in planned.visual_tokens
        ]  # fmt: skip
        each = [(parts_of(**one), turns_of(one, asked)) for one in models]
    except (InputError, click.BadParameter) as error:
        raise InputError(f"recipe {planned.recipe}: {error}") from None
    jobs = [
        Job(planned.command, planned.recipe, parts, planned.data, settings, **turns)
        for parts, turns in each * planned.n_seeds
    ]
    return side_by_side(jobs, planned.n_seeds) if command is train_projector else jobs


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a person reads it."""
    on_disk = row["disk_run"] + row["disk_checkpoints"]
    return {
        **row,
        "llm": row["llm"].rstrip("/").rsplit("/", 1)[-1],
        "flops": float(row["flops"]),
        "memory_gib": round(row["memory_peak"] / 2**30, 1),
        "disk_gb": round(on_disk / 1e9, 2),
    }


def _totals(rows: Sequence[dict[str, Any]], mfu: float) -> list[str]:
    """All runs together, in words."""
    from vtc.tables.quantity import format_flops

    flops = sum(row["flops"] for row in rows)
    steps = sum(row["steps"] for row in rows)
    lines = [f"{len(rows)} runs, {steps:,} steps, {format_flops(flops)} in all."]
    for gpu in dict.fromkeys(row["gpu"] for row in rows if row.get("gpu")):
        of_gpu = [row for row in rows if row.get("gpu") == gpu]
        hours = sum(row["gpu_hours"] for row in of_gpu)
        fitting = sum(row["fits"] for row in of_gpu)
        lines.append(
            f"{gpu}: {hours:,.1f} GPU-hours at {mfu:.0%} of its peak; {fitting} of {len(of_gpu)} "
            "runs fit it as they are."
        )
    kept = sum(row["disk_run"] for row in rows)
    checkpoints = max(row["disk_checkpoints"] for row in rows)
    features = max(row["disk_features"] for row in rows)
    lines.append(
        f"Disk: {kept / 1e9:,.1f} GB of runs, up to {checkpoints / 1e9:,.1f} GB of checkpoints "
        f"while one trains; a feature cache would take {features / 1e9:,.0f} GB."
    )
    return lines


def _footer(fmt: str, recipes: Sequence[str], mfu: float) -> dict[str, Any] | None:
    if fmt != "parquet":
        return None
    from vtc.tables import provenance

    files = [path for path in recipes if Path(path).is_file()]
    return provenance.footer(settings={"mfu": mfu}, inputs=files)
