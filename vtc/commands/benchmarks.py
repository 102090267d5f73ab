"""`vtc benchmarks`: the benchmarks of the field that `vtc eval` knows by name."""

import click

from vtc.commands import options


@click.command("benchmarks")
@click.argument("names", nargs=-1)
@options.config
@options.output
def benchmarks(names, out, fmt, force) -> None:
    """List the benchmarks of the field, or those NAMED: rows, metric, task, where the data is.

    Each is evaluated with `vtc eval RUN --benchmark NAME`, from the Hugging Face hub or from files
    (`--data-dir`). docs/benchmarks.md says what each asks, how it is scored, and how to add one.

    \b
    Example:
      vtc benchmarks
      vtc benchmarks mmbench gqa --format json
    """
    from vtc.evaluate.benchmarks.registry import SPECS, described, find
    from vtc.tables import specs
    from vtc.tables.write import check_output

    check_output(out, fmt, force)
    chosen = [find(name) for name in names] or list(SPECS.values())
    columns = "name task n_rows metric max_new_tokens source config split joined"
    rows = [described(spec) for spec in chosen]
    options.emit(rows, specs.BENCHMARKS, out, fmt, force, columns=columns.split())
