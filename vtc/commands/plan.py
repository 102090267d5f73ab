"""vtc plan: measured points and a budget of GPU-hours in, runs worth making out."""

import click

from vtc.commands import options

_COLUMNS = {
    **{"step": "step", "llm": "LLM", "visual_tokens": "V", "compressor": "compressor"},
    **{"replicate": "run", "gpu_hours": "hours", "gpu_hours_total": "in all"},
    **{"after": "expected", "shrinkage": "narrower", "shrinkage_per_hour": "per hour"},
    **{"regret": "regret", "sigma": "sigma", "sigma_total": "sigma in all"},
}


class _Pair(click.ParamType):
    """Two numbers above zero with a comma between, one a stage: 558k,665k."""

    name = "A,B"

    def convert(self, value, param, ctx):
        """Parse `value`; raises click.BadParameter for anything else."""
        if isinstance(value, tuple):
            return value
        parts = value if isinstance(value, list) else str(value).split(",")
        if len(parts) != 2:
            self.fail(f"'{value}' must be two numbers, one a stage, such as 558k,665k", param, ctx)
        return tuple(options.Quantity(zero=True).convert(part, param, ctx) for part in parts)


@click.command()
@click.argument("tables", metavar="[TABLE]...", nargs=-1, type=click.Path(allow_dash=True))
@click.option(
    "--goal",
    default="ratio",
    show_default=True,
    help="What the runs are for: ratio (alpha/beta), vstar, predict:N=14b,V=16 or discriminate.",
)
@click.option(
    "--forms",
    default="power,log-linear",
    show_default=True,
    help="Two forms of the law, see `vtc fit --form`; sigma is how far a run tells them apart.",
)
@click.option(
    "--budget-gpu-hours",
    "hours",
    type=options.Finite(0, min_open=True),
    default=100.0,
    show_default=True,
    help="GPU-hours that the plan may take.",
)
@click.option(
    "--sizes",
    type=options.Names(),
    help="LLMs to run: sizes such as 0.36b (taken as of the points' family), names of the catalog "
    "or folders. [default: the points' and their family's]",
)
@click.option("--tokens", type=options.Numbers(), help="V to run. [default: those of the points]")
@click.option(
    "--compressors",
    type=options.Names(),
    help="Compressors to run; one that the points lack gets a level of its own. [default: theirs]",
)
@click.option(
    "--seeds", type=click.IntRange(1, 100), help="Runs of a cell that may be made. [default: 1]"
)
@click.option(
    "--candidates",
    metavar="FILE",
    help="Table of the runs that could be made, in place of these: llm or n_params, visual_tokens, "
    "and if wanted compressor, seeds, gpu_hours.",
)
@click.option("--each", is_flag=True, help="Rate every candidate alone, in place of a plan.")
@click.option("--gpu", default="a100-80gb", show_default=True, help="GPU, see `vtc catalog gpus`.")
@click.option(
    "--mfu",
    type=options.Finite(0, 1, min_open=True),
    default=0.35,
    show_default=True,
    help="Share of the GPU's bf16 peak that trainings reach.",
)
@click.option(
    "--calibrate",
    metavar="LLM:V=HOURS",
    help="Scale all hours by a run that you timed, as in 7b:576=108.",
)
@click.option(
    "--samples", type=_Pair(), help="Samples of the two stages. [default: 558128,665298, LLaVA-1.5]"
)
@click.option("--sample-text", type=_Pair(), help="Text tokens a sample. [default: 30,250]")
@click.option(
    "--recipe",
    type=click.Path(),
    help="Recipe whose trainings are meant: exact FLOPs, data, method and memory as `vtc estimate` "
    "has them; LLM, compressor and V are the candidates'.",
)
@click.option(
    "--encoder",
    default="openai/clip-vit-large-patch14-336",
    show_default=True,
    help="Frozen encoder of the runs: a name, folder or hub id, or none.",
)
@click.option(
    "--run-sd",
    type=options.Finite(0, 1, min_open=True),
    help="Noise of a run, in units of the error. [default: the points' residuals within LLMs]",
)
@click.option(
    "--llm-sd",
    type=options.Finite(0, 1),
    help="What is peculiar to an LLM, in units of the error. [default: from the points]",
)
@click.option(
    "--stop-regret",
    type=options.Finite(0, 100),
    default=2.0,
    show_default=True,
    help="Say to stop when the best V wastes less than this share of FLOPs at worst, in percent.",
)
@click.option("--law", help="Law of these points, from `vtc fit`. [default: fitted here]")
@click.option("--task", help="Task of the points. [default: the only one, or reasoning]")
@click.option(
    "--n",
    "convention",
    type=click.Choice(("nominal", "total", "non-embedding")),
    help="How to count the LLM's parameters N. [default: nominal, or as --law does]",
)
@click.option("--drop-suspect", is_flag=True, help="Leave out rows whose note begins 'suspect'.")
@click.option(
    "--drop-untrained", is_flag=True, help="Leave out runs at V that they were not trained at."
)
@click.option(
    "--level",
    type=options.Finite(0.5, 1, max_open=True),
    help="Coverage the intervals aim at. [default: 0.95, or the law's]",
)
@options.text_tokens("Text tokens Q of the best V.")
@options.output
@options.config
def plan(tables, law, goal, forms, hours, each, stop_regret, out, fmt, force, **flags) -> None:
    """Say which runs to make next, what they cost, and whether to stop instead.

    TABLE holds the runs there are, as `vtc fit` takes it, several too. [default: the published
    measurements]
    Candidates are all --sizes at all --tokens. Each step is the run, or the pair of runs, that
    narrows the interval of the goal most for its GPU-hours, the steps before it counted in.
    On stderr: where the choice of V is settled already, what to test instead.
    Exits with 3 if no run helps or fits the budget. See docs/plan.md.

    \b
    Example:
      vtc plan --budget-gpu-hours 100 --gpu a100-80gb
      vtc plan scores.parquet --sizes 0.36b,0.5b,1.8b --tokens 1,64,576 --seeds 2
      vtc plan points.csv --goal predict:N=14b,V=16 --recipe recipes/paper/lora.toml
      vtc plan --goal discriminate --forms power,log-linear --each
    """
    from vtc import console
    from vtc.commands import plan_hours, planning
    from vtc.law import design_forms, design_goals, design_plan, design_words
    from vtc.tables import specs, write

    chosen = write.check_output(out, fmt, force)
    planning.check_piped(tables, law, flags["candidates"])
    goal = design_goals.parse_goal(goal)
    forms = design_forms.parse_forms(forms)
    planning.check_goal(goal, flags["text_tokens"])
    tables = planning.tables_of(tables, law)
    costs = plan_hours.Hours(flags)
    basis = planning.basis_of(tables, law, flags)
    costs.calibrate(basis.points)
    question = design_plan.Question(
        basis.points,
        basis.law,
        planning.candidates_of(flags, basis.points, costs),
        goal,
        hours,
        forms=forms,
        run_sd=flags["run_sd"],
        llm_sd=flags["llm_sd"],
        level=basis.law["level"] or planning.LEVEL,
        text_tokens=flags["text_tokens"],
        stop=stop_regret / 100,
        each=each,
    )
    found = design_plan.plan(question)
    for line in design_words.describe(question, found, costs.words):
        console.say(line)
    if chosen == "table" and out == "-":
        columns = _shown(found.rows)
        rows = [{name: _cell(name, row) for name in columns} for row in found.rows]
        console.print_table(rows, [*columns], columns)
        return
    footer = None
    if chosen == "parquet":
        from vtc.tables import provenance

        inputs = [path for path in (*tables, law, flags["candidates"], flags["recipe"]) if path]
        settings = click.get_current_context().params
        footer = provenance.footer(settings=settings, inputs=inputs)
    options.emit(found.rows, specs.PLAN, out, fmt, force, footer=footer)


def _shown(rows):
    """The columns that a person sees: of a level of its own the compressor, of a plan the sums."""
    absent = {"compressor"} if len({row["compressor"] for row in rows}) == 1 else set()
    if all(row["gpu_hours_total"] == row["gpu_hours"] for row in rows):
        absent |= {"gpu_hours_total", "sigma_total"}
    if all(row["sigma"] is None for row in rows):
        absent |= {"sigma", "sigma_total"}
    if all(row["regret"] is None for row in rows):
        absent.add("regret")
    return {name: heading for name, heading in _COLUMNS.items() if name not in absent}


def _cell(name, row):
    if name == "after":
        low, high = row["after_low"], row["after_high"]
        if low is None and high is None:
            return None
        return f"{low or 0:.4g}-{'' if high is None else format(high, '.4g')}"
    value = row[name]
    if name == "llm":
        return value + "*" * row["extrapolates"] + "+" * row["with_next"]
    if value is None or name not in ("shrinkage", "regret", "shrinkage_per_hour"):
        return value
    return f"{100 * value:.2g}%" if name == "shrinkage_per_hour" else f"{value:.1%}"
