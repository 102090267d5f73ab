"""vtc compare: scores in, compressors side by side out."""

import click

from vtc.commands import options

COLUMNS = (
    *("task", "benchmark", "backbone", "compressor", "visual_tokens", "n_runs"),
    *("score", "score_low", "score_high", "same_v", "flops", "time_ms", "same_cost"),
    *("same_cost_best", "same_cost_difference", "gap_closed", "gap_closed_next", "beta"),
    *("beta_low", "beta_high", "beta_d0", "beta_d0_low", "beta_d0_high"),
)


@click.command()
@click.argument(
    "tables", metavar="SCORES...", nargs=-1, required=True, type=click.Path(allow_dash=True)
)
@click.option(
    "--by",
    type=click.Choice(("task", "benchmark")),
    default="task",
    show_default=True,
    help="Compare on the mean over a task's benchmarks, or on each benchmark.",
)
@click.option("--task", "tasks", multiple=True, help="Compare on this task only (repeatable).")
@click.option(
    "--llm",
    "llms",
    multiple=True,
    help="Folder or name of an LLM of the scores, for FLOPs (repeatable). [default: the catalog's]",
)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    help="Folder or name of a vision encoder, likewise. [default: the catalog's]",
)
@options.text_tokens("Text tokens Q behind the image, in the costs.")
@click.option(
    "--costs",
    metavar="FILE",
    multiple=True,
    help="Measured costs of vtc profile (repeatable): equal cost is then equal time.",
)
@click.option("--device", help="Device of the costs, where the table has several.")
@click.option(
    "--uncompressed",
    default="mlp",
    show_default=True,
    help="Compressor that stands for the uncompressed model.",
)
@click.option(
    "--floor",
    type=click.Choice(("blind", "chance", "lowest")),
    help="Where the gap to it begins. [default: blind where it was run, else lowest]",
)
@click.option(
    "--runs",
    "folders",
    multiple=True,
    type=click.Path(),
    help="Folder of the runs (repeatable): name what differs in their recipes and data.",
)
@click.option(
    "--level",
    type=options.Finite(0.5, 1, max_open=True),
    default=0.95,
    show_default=True,
    help="Coverage the intervals aim at.",
)
@click.option("--figure", metavar="FILE", help="Also draw it: .png, .svg or .pdf.")
@options.output
@options.config
def compare(tables, llms, encoders, costs, device, folders, figure, out, fmt, force, **settings):
    """Hold token compressors side by side: at the same V, and at the same cost.

    SCORES are scores tables of `vtc score` or `vtc eval`, or predictions, of runs of one recipe
    with several compressors, V and seeds. A row a compressor and V: its score with an interval,
    its FLOPs with encoder, compressor and question, its place among those at the same V and among
    those that cost the same, the share of the gap to the uncompressed model that it closes, and
    its exponent beta. What is not told apart is called tied (docs/compare.md).

    \b
    Example:
      vtc compare scores.parquet
      vtc compare scores.parquet --llm world/llm/mini-b --encoder world/encoder --q 4
      vtc compare scores.parquet --by benchmark --figure compare.svg
      vtc compare scores.parquet --costs costs.parquet --format csv
    """
    from vtc import console
    from vtc.compare.checked import checked
    from vtc.compare.recipes import differences
    from vtc.compare.run import Request, compare
    from vtc.errors import InputError
    from vtc.evaluate.looking import score_rows
    from vtc.tables import provenance, specs, write
    from vtc.tables.read import title

    chosen = write.check_output(out, fmt, force)
    if figure:
        from vtc.commands import plotting

        plotting.check(figure, force)
    if device and not costs:
        raise InputError("--device names a device of --costs; give the costs too")
    request = Request(**settings)
    rows = [row for table in tables for row in checked(score_rows([table], (), ()), title(table))]
    times = None
    if costs:
        from vtc.compare.pricing import read_times

        times = read_times(costs, request.text_tokens, device)
    found = compare(rows, request, _prices(rows, llms, encoders, request.text_tokens), times)
    for line in (*found.lines, *differences(folders, rows)):
        console.say(line)
    footer = None
    if chosen == "parquet":
        inputs = [*tables, *costs]
        footer = provenance.footer(settings=request.settings(), inputs=inputs)
    if figure:
        from vtc.figures.compare import draw

        plotting.save(draw(found.rows), figure, force)
    several = len({row["backbone"] for row in found.rows}) > 1
    columns = [
        name
        for name in COLUMNS
        if (name != "backbone" or several) and any(row[name] is not None for row in found.rows)
    ]
    options.emit(found.rows, specs.COMPARISON, out, fmt, force, footer=footer, columns=columns)


def _prices(rows, llms, encoders, text_tokens):
    """What a cell costs: shapes of the models given, else of the catalog's; None where unknown."""
    from vtc.catalog import encoders as encoder_catalog
    from vtc.catalog import llms as llm_catalog
    from vtc.compare.pricing import price
    from vtc.errors import InputError

    text = _shapes("--llm", llms, {row["backbone"] for row in rows}, llm_catalog.shape)
    names = {row["encoder"] for row in rows if row.get("encoder")}
    vision = _shapes("--encoder", encoders, names, encoder_catalog.shape)

    def price_of(cell):
        llm, encoder = text.get(cell.field.backbone), vision.get(cell.field.encoder or "")
        if llm is None or encoder is None:
            return None
        try:
            stated = _stated(cell, encoder, llm.hidden_size)
        except InputError:  # Somebody's own settings, or a V that ours cannot make.
            return None
        if stated is None:
            return None
        return price(llm, encoder, stated, cell.visual_tokens, text_tokens)

    return price_of


def _shapes(flag, sources, names, shape):
    """Shapes by the names in the scores; raises InputError for a source that none is called by."""
    from pathlib import Path

    from vtc.commands.parts import shape_of
    from vtc.errors import InputError

    found = {}
    for source in sources:
        own = Path(source).resolve().name if Path(source).exists() else source
        called = [name for name in names if name == own or name.rsplit("/", 1)[-1] == own]
        if not called:
            there = ", ".join(sorted(names)) or "none"
            raise InputError(f"{flag} {source}: the scores are of {there}, none called '{own}'")
        found |= dict.fromkeys(called, shape_of(shape, source))
    for name in names - set(found):
        try:
            found[name] = shape(name)
        except InputError:
            continue
    return found


def _stated(cell, encoder, text_width):
    """What a compressor costs an image and its text; None for one that is not of the registry."""
    from vtc.commands.stating import stated_of
    from vtc.compress.choices import KNOWN
    from vtc.tables.compressors import settings_of

    known = KNOWN.get(cell.compressor)
    if known is None or known.schedule is not None:  # Inside the LLM: its layers have no one V.
        return None
    tokens = cell.visual_tokens // cell.repeats
    return stated_of(cell.compressor, encoder, text_width, tokens, settings_of(cell.settings))
