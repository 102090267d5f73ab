"""`vtc encode`: the frozen encoder over all images once, into a feature cache."""

import click

from vtc.commands import options


@click.command("encode")
@click.argument("sources", nargs=-1, required=True, type=click.Path())
@click.option("--encoder", required=True, help="Vision encoder: a model folder or hub id.")
@click.option(
    "--compressor",
    "compressors",
    default=None,
    help="Compressors to serve, such as tokenpacker,avgpool. [default: all]",
)
@click.option(
    "--levels",
    type=options.Numbers(),
    default=None,
    help="Hidden states to store, such as 12,16,23. [default: those the compressors ask for]",
)
@click.option("--images", default=None, help="Image root. [default: the one the sources name]")
@click.option(
    "--dtype",
    type=click.Choice(["fp16", "bf16", "fp32"]),
    default="fp16",
    show_default=True,
    help="Number type of the stored features; the encoder runs in fp32 on a CPU.",
)
@click.option("--batch-size", default=64, show_default=True, help="Images encoded at a time.")
@click.option("--dry-run", is_flag=True, help="Print what would be written, and its size.")
@options.config
@click.option("--force", is_flag=True, help="Overwrite an output that exists.")
@click.option("-o", "--out", required=True, help="Folder for the features.")
def encode(
    sources, encoder, compressors, levels, images, dtype, batch_size, dry_run, force, out
) -> None:
    """Run a frozen vision encoder once over every distinct image of samples and benchmarks.

    SOURCES are samples tables, LLaVA JSON or benchmarks (TOML), all under one image root. The
    folder holds the features of those hidden states that the compressors ask for, and says which
    encoder and preprocessing made them; a training or evaluation refuses features of another.

    \b
    Example:
      vtc encode samples.parquet --encoder world/encoder -o features/
    """
    from vtc import console
    from vtc.tables.atomic import refuse_existing
    from vtc.tables.provenance import footer

    if not dry_run:
        refuse_existing(out, force)
    root, paths = _distinct_images(sources, images)

    import torch

    from vtc.model.backbones import load_encoder
    from vtc.model.encode import layout_of, requested_levels, write_encoded

    loaded = load_encoder(encoder)
    named = tuple(filter(None, (compressors or "").split(",")))
    layout = layout_of(loaded, levels or requested_levels(loaded.tower.config, named), dtype)
    settings = {
        "sources": list(sources),
        "image_root": str(root),
        "encoder": loaded.source.path,
        "levels": list(layout.levels),
        "grid": list(layout.grid),
        "dtype": dtype,
        "n_images": len(paths),
        "megabytes": round(layout.n_bytes(len(paths)) / 1e6, 3),
    }
    if dry_run:
        rows = [{"setting": key, "value": value} for key, value in settings.items()]
        console.print_table(rows, ["setting", "value"])
        return
    if torch.cuda.is_available():
        loaded.tower.to("cuda")
    with console.progress("encoding images", len(paths)) as advance:
        about = footer(settings=settings, inputs=sources)
        write_encoded(
            out, loaded, root, paths, layout,
            batch_size=batch_size, footer=about, force=force, advance=advance,
        )  # fmt: skip
    console.say(f"wrote {out} ({len(paths)} images, {settings['megabytes']} MB)")


def _distinct_images(sources, images):
    """The one image root of samples and benchmarks, and their distinct images in order."""
    from vtc.data.samples import read_samples
    from vtc.errors import InputError
    from vtc.evaluate.benchmark import read_benchmark
    from vtc.evaluate.items import read_items

    roots, paths = {}, {}
    for source in sources:
        if str(source).endswith(".toml"):
            benchmark = read_benchmark(source, images)
            root, found = benchmark.images, [item.image for item in read_items(benchmark)]
        else:
            rows, root = read_samples([source], images)
            found = [image for row in rows for image in row["images"]]
        roots.setdefault(root.resolve(), source)
        paths.update(dict.fromkeys(filter(None, found)))
    if len(roots) > 1:
        first, second = list(roots.values())[:2]
        raise InputError(f"{first} and {second} have different image roots; give one with --images")
    if not paths:
        raise InputError(f"{', '.join(sources)}: no images to encode")
    return next(iter(roots)), list(paths)
