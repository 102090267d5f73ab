"""`vtc check-data`: LLaVA JSON in, clean samples and rejects out."""

import click

from vtc.commands import options


class Share(click.ParamType):
    """A share written 1% or 0.01."""

    name = "SHARE"

    def convert(self, value, param, ctx) -> float:
        """Parse `value`; raises click.BadParameter unless it lies in [0, 1]."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            self.fail(f"'{value}' is no share such as 1% or 0.01", param, ctx)
        if not 0 <= share <= 1:
            self.fail(f"'{value}' lies outside 0% to 100%", param, ctx)
        return share


@click.command("check-data")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option(
    "--images",
    default=None,
    help="Image root. [default: the one a samples table names, else the first file's folder]",
)
@click.option("--llm", default=None, help="LLM whose tokenizer counts tokens and checks labels.")
@click.option(
    "--template",
    type=click.Choice(["chat", "plain"]),
    default="chat",
    show_default=True,
    help="How conversations become text, with --llm.",
)
@click.option("--rejects", default=None, help="Where the rows set aside go (a table).")
@click.option(
    "--max-bad", type=Share(), default="1%", show_default=True, help="Rejected rows allowed."
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Threads that open images.",
)
@options.config
@options.output
def check_data(files, images, llm, template, rejects, max_bad, workers, out, fmt, force) -> None:
    """Read LLaVA JSON, JSON lines or samples tables; open every image; set broken rows aside.

    Writes the clean rows as a samples table. Rejected are rows with a missing or damaged image, a
    wrong number of <image> marks, roles out of order, an empty turn, no supervised token (with
    --llm), or equal to an earlier row. With more than --max-bad of them the rejects are written,
    the samples are not, and the exit code is 2.

    \b
    Example:
      vtc check-data train.json --images photos/ --rejects rejects.parquet -o samples.parquet
    """
    from functools import partial

    from vtc import console
    from vtc.data.checks import check_files, image_root, too_many_bad
    from vtc.errors import InputError
    from vtc.tables import specs
    from vtc.tables.provenance import footer
    from vtc.tables.write import check_output

    root = image_root(files[0], images)
    check_output(out, fmt, force)
    if rejects is not None:
        check_output(rejects, None, force)
        if rejects == out:
            raise InputError(f"-o and --rejects are both {out}; give two names")
    judge = None
    if llm is not None:
        from vtc.data.labels import TurnEncoder
        from vtc.data.tokenizers import count_tokens, load_tokenizer

        judge = partial(count_tokens, encoder=TurnEncoder(load_tokenizer(llm), template))
    with console.progress("opening images") as advance:
        checked = check_files(files, root, judge=judge, workers=workers, advance=advance)
    for line in checked.summary():
        console.say(line)
    settings = {"image_root": str(root.resolve()), "max_bad": max_bad, "template": template}
    about = footer(settings={**settings, "llm": llm}, inputs=files)
    if rejects is not None:
        options.emit(checked.rejects, specs.REJECTS, rejects, None, force, footer=about)
    if checked.share_bad > max_bad or not checked.samples:
        raise too_many_bad(checked, max_bad, root, rejects)
    shown = ["sample_id", "images", "n_text_tokens"]
    options.emit(checked.samples, specs.SAMPLES, out, fmt, force, footer=about, columns=shown)
