"""`vtc check-data`: rows of any usual format in, clean samples and rejects out."""

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
@click.argument("sources", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option("--images", help="Image root. [default: the one the sources name, or their folder]")
@click.option(
    "--save-images",
    help="Folder for pictures that rows hold themselves. [default: OUT-images, beside -o]",
)
@click.option("--split", help="Split of a Hugging Face dataset. [default: the only one, or train]")
@click.option("--subset", help="Subset (configuration) of a Hugging Face dataset.")
@click.option("--streaming", is_flag=True, help="Read a dataset of the hub without a download.")
@click.option("--limit", type=click.IntRange(1), help="Only the first rows of each source.")
@click.option("--llm", help="LLM whose tokenizer counts tokens and checks labels.")
@click.option(
    "--template",
    type=click.Choice(["chat", "plain"]),
    default="chat",
    show_default=True,
    help="How conversations become text, with --llm.",
)
@options.chat_template
@click.option(
    "--max-length", type=click.IntRange(1), help="With --llm: find rows that training would cut."
)
@click.option(
    "--visual-tokens",
    type=click.IntRange(1),
    default=576,
    show_default=True,
    help="Tokens an image counts as, with --max-length.",
)
@click.option("--rejects", help="Where the rows set aside, and those noted, go (a table).")
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
def check_data(sources, images, rejects, max_bad, workers, out, fmt, force, **flags) -> None:
    """Read conversations of several formats; open every image; set broken rows aside.

    SOURCES are files (JSON, JSON lines, gzipped or not, Parquet) or Hugging Face datasets (a
    folder, or a hub id such as org/name:split) with LLaVA's `conversations`, OpenAI's `messages`
    or the_cauldron's `texts`. Pictures that rows hold themselves become files in --save-images.

    Writes the clean rows as a samples table. Rejected are rows with a missing or damaged image, a
    wrong number of <image> marks, roles out of order, an empty turn, no supervised token (with
    --llm), or equal to an earlier row; the rejects also note what is odd but kept, such as a PNG
    named .jpg. With more than --max-bad of them the rejects are written, the samples are not, and
    the exit code is 2.

    \b
    Example:
      vtc check-data train.json --images photos/ --rejects rejects.parquet -o samples.parquet
      vtc check-data org/name:train --streaming --limit 1000 -o samples.parquet
    """
    from pathlib import Path

    from vtc import console
    from vtc.data.checks import Check
    from vtc.data.findings import too_many_bad
    from vtc.data.pictures import Pictures
    from vtc.data.sources import Choice, image_root, open_source
    from vtc.tables import specs
    from vtc.tables.provenance import footer
    from vtc.tables.spool import Spool

    _check_outputs(out, fmt, rejects, force)
    choice = Choice(*(flags[name] for name in ("split", "subset", "streaming", "limit")))
    opened = [open_source(source, choice) for source in sources]
    beside = None if out == "-" else f"{Path(out).with_suffix('')}-images"
    pictures = flags["save_images"] or beside
    root = image_root(opened, images, Path(pictures) if pictures else None)
    keep = Pictures(Path(pictures or root), root)
    judge = _judge(flags)
    settings = {**flags, "image_root": str(root.resolve()), "max_bad": max_bad}
    about = footer(settings=settings, inputs=sources)
    sizes = [source.n_rows for source in opened]
    total = None if None in sizes else sum(filter(None, sizes))
    with Spool(specs.SAMPLES, about, out) as clean, Spool(specs.REJECTS, about, rejects) as odd:
        with console.progress("checking rows and images", total) as advance:
            check = Check(
                root, clean.add, odd.add, judge=judge, keep=keep, workers=workers, advance=advance
            )
            found = check.run(opened)
        for line in found.lines():
            console.say(line)
        if rejects is not None:
            _emit(odd, rejects, None, force)
        if found.share_bad > max_bad or not found.n_clean:
            raise too_many_bad(found, max_bad, root, rejects, sources)
        _emit(clean, out, fmt, force, ["sample_id", "images", "n_text_tokens"])


def _check_outputs(out, fmt, rejects, force) -> None:
    """Ask whether both tables can be written, before any work."""
    from vtc.errors import InputError
    from vtc.tables.write import check_output

    check_output(out, fmt, force)
    if rejects is not None:
        check_output(rejects, None, force)
        if rejects == out:
            raise InputError(f"-o and --rejects are both {out}; give two names")


def _judge(flags):
    """What counts tokens and looks at labels; None without --llm."""
    from vtc.errors import InputError

    if flags["llm"] is None:
        if flags["max_length"] is not None:
            raise InputError("--max-length counts tokens: it needs --llm")
        return None
    from vtc.data.chat_templates import give_template
    from vtc.data.judge import Judge
    from vtc.data.labels import TurnEncoder
    from vtc.data.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(flags["llm"])
    give_template(tokenizer, flags["chat_template"])
    encoder = TurnEncoder(tokenizer, flags["template"])
    return Judge(encoder, flags["max_length"], flags["visual_tokens"])


def _emit(spool, out, fmt, force, columns=None) -> None:
    """Send a spooled table to where it goes: a Parquet file is moved, all else is written."""
    from vtc import console
    from vtc.tables.write import check_output

    if out != "-" and check_output(out, fmt, force) == "parquet":
        spool.publish(out)
        console.say(f"wrote {out} ({spool.n_rows} row{'s' * (spool.n_rows != 1)})")
        return
    options.emit(spool.rows(), spool.spec, out, fmt, force, footer=spool.footer, columns=columns)
