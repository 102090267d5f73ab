"""`vtc catalog`: the LLMs, encoders and GPUs whose shapes and figures vtc knows."""

from collections.abc import Sequence
from typing import Any

import click

from vtc.commands import options

KINDS = ("llms", "encoders", "gpus")


@click.command("catalog")
@click.argument("kind", type=click.Choice(KINDS))
@options.config
@options.output
def catalog(kind, out, fmt, force) -> None:
    """List the LLMs, encoders or GPUs of the catalog, each with the source of its figures.

    Where a command takes an encoder or an LLM, a Hugging Face folder with its config.json serves as
    well. To add rows of your own, write them as CSV with these columns into llms.csv, encoders.csv
    or gpus.csv of a folder, and name it: export VTC_CATALOG=FOLDER. The source must be stated;
    counts of parameters, windows and efficiencies may be left empty.

    \b
    Example:
      vtc catalog gpus
      vtc catalog llms --format csv
    """
    from vtc.tables.write import check_output

    check_output(out, fmt, force)
    spec, rows, shown = _listed(kind)
    options.emit(rows, spec, out, fmt, force, columns=shown)


def _listed(kind: str) -> tuple[Any, list[dict[str, Any]], Sequence[str]]:
    """The table, its rows, and the columns that a person sees."""
    from vtc.tables import specs

    if kind == "llms":
        from vtc.catalog import llms

        rows = [_row(llm, specs.LLMS, llm.shape) for llm in llms.catalog()]
        wanted = "model family n_params n_params_total n_layers hidden_size vocab_size tied source"
        return specs.LLMS, rows, wanted.split()
    if kind == "encoders":
        from vtc.catalog import encoders

        rows = [
            {**_row(shape, specs.ENCODERS), "encoder": name, "source": source}
            for name, shape, source in encoders.entries()
        ]
        wanted = "encoder n_layers hidden_size image_size patch_size n_params source"
        return specs.ENCODERS, rows, wanted.split()
    from vtc.catalog import gpus

    rows = [
        {**_row(gpu, specs.GPUS), "bf16_tflops": gpu.bf16_flops / 1e12} for gpu in gpus.catalog()
    ]
    wanted = "gpu memory_gb bandwidth_gb_s bf16_tflops source"
    return specs.GPUS, rows, wanted.split()


def _row(one: Any, spec: Any, other: Any = None) -> dict[str, Any]:
    """The columns that are fields of a dataclass, or of a second one inside it."""
    fields = {**vars(one), **(vars(other) if other else {})}
    return {name: fields[name] for name in spec.column_names if name in fields}
