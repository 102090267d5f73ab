"""`vtc encode`: the frozen encoder over all images once, into a feature cache."""

import click

from vtc.commands import options, preflight


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
@options.image_mode("the encoder's own")
@click.option(
    "--dtype",
    type=click.Choice(["fp16", "bf16", "fp32"]),
    default="fp16",
    show_default=True,
    help="Number type of the stored features; the encoder runs in fp32 on a CPU.",
)
@click.option(
    "--pool",
    type=click.IntRange(min=1),
    help="Store the means of so many windows: the largest V wanted. [avgpool alone]",
)
@click.option("--batch-size", default=64, show_default=True, help="Images encoded at a time.")
@click.option(
    "--shard-images",
    type=click.IntRange(min=1),
    help="Images a file; an interruption costs at most one. [default: what fits 512 MiB]",
)
@click.option("--dry-run", is_flag=True, help="Print what would be written, and its cost.")
@options.config
@click.option("--force", is_flag=True, help="Overwrite an output that exists, or was begun.")
@click.option("--resume", is_flag=True, help="Go on with an encoding that was interrupted.")
@click.option("-o", "--out", required=True, help="Folder for the features.")
def encode(sources, encoder, compressors, levels, images, dtype, pool, out, **flags) -> None:
    """Run a frozen vision encoder once over every distinct image of samples and benchmarks.

    SOURCES are samples tables, LLaVA JSON or benchmarks (TOML), all under one image root, or each
    source of samples under its own: then theirs is the folder they have in common. The
    folder holds the features of those hidden states that the compressors ask for, and says which
    encoder, preprocessing and image files made them; a training or evaluation refuses others.
    First it states the size, the reading speed needed, and after how many passes over the images
    the cache pays: where it does not, train without.

    \b
    Example:
      vtc encode samples.parquet --encoder world/encoder --compressor tokenpacker -o features/
    """
    from pathlib import Path

    from vtc import console
    from vtc.tables.atomic import existing_parent, refuse_existing
    from vtc.tables.provenance import footer

    finished = flags["resume"] and (Path(out) / "manifest.json").is_file()
    if not flags["dry_run"] and not finished:
        refuse_existing(out, flags["force"], folder=True)
    named = tuple(filter(None, (compressors or "").split(",")))
    preflight.check_parts(encoder, compressors=named, pool=pool)
    preflight.check_cacheable(named)
    root, rows = _image_users(sources, images)
    paths = list(dict.fromkeys(image for row in rows for image in row["images"]))

    from vtc.data.image_faults import naming_samples
    from vtc.data.image_modes import with_mode
    from vtc.model.backbones import load_encoder
    from vtc.model.encode import layout_of, pool_layout, requested_levels, write_encoded

    loaded = load_encoder(encoder)
    loaded.image_processor = with_mode(loaded.image_processor, flags["image_mode"])
    layout = layout_of(loaded, levels or requested_levels(loaded.tower.config, named), dtype)
    if pool is not None:
        layout = pool_layout(layout, pool, named)
    if finished:
        _check_finished(out, loaded, layout, root, paths)
        console.say(f"{out} is whole already")
        return
    around = existing_parent(Path(out).absolute())
    with naming_samples(root, rows):
        cost = _cost(loaded, root, paths, layout, around, flags["batch_size"])
    for sentence in cost.sentences():
        console.say(sentence)
    settings = {
        "sources": list(sources),
        "image_root": str(root),
        "encoder": loaded.source.path,
        "image_mode": flags["image_mode"],
        "levels": list(layout.levels),
        "grid": list(layout.grid),
        "dtype": dtype,
        "n_images": len(paths),
        "megabytes": round(cost.n_bytes / 1e6, 3),
    }
    if flags["dry_run"]:
        facts = {**settings, "megabytes_per_second": round(cost.bandwidth / 1e6, 3),
                 "break_even_passes": cost.break_even}  # fmt: skip
        rows = [{"setting": key, "value": value} for key, value in facts.items()]
        console.print_table(rows, ["setting", "value"])
        return
    with naming_samples(root, rows), console.progress("encoding images", len(paths)) as advance:
        about = footer(settings=settings, inputs=sources)
        write_encoded(
            out, loaded, root, paths, layout,
            batch_size=flags["batch_size"], images_per_shard=flags["shard_images"], footer=about,
            force=flags["force"], resume=flags["resume"], advance=advance,
        )  # fmt: skip
    console.say(f"wrote {out} ({len(paths)} images, {settings['megabytes']} MB)")


def _check_finished(out, encoder, layout, root, paths):
    """Raise InputError unless the features are those that would be made."""
    from vtc.data.features import FeatureStore, preprocessing_hash

    store = FeatureStore.open(out)
    store.check(encoder.source.fingerprint, preprocessing_hash(encoder.image_processor))
    store.check_made_for(layout, paths)
    store.check_images(root, paths)


def _cost(encoder, root, paths, layout, folder, batch_size):
    """What the cache will cost, measured; moves the encoder to a GPU if there is one."""
    import torch

    from vtc.data.feature_cost import CacheCost, check_space, disk_speed
    from vtc.model.encode import encoder_speed

    size = layout.n_bytes(len(paths))
    check_space(folder, size)
    gpu = torch.cuda.is_available()
    if gpu:
        encoder.tower.to("cuda")
    speed = encoder_speed(encoder, root, paths, layout.levels, batch_size if gpu else 4)
    return CacheCost(len(paths), size, speed, disk_speed(folder, size))


def _image_users(sources, images):
    """The one image root of samples and benchmarks, and the rows that name images, in order."""
    from vtc.data.samples import read_samples
    from vtc.errors import InputError
    from vtc.evaluate.benchmark import read_benchmark
    from vtc.evaluate.items import read_items

    roots, users = {}, []
    benchmarks = [source for source in sources if str(source).endswith(".toml")]
    tables = [source for source in sources if source not in benchmarks]
    if tables:
        rows, root = read_samples(tables, images)
        roots[root.resolve()] = tables[0]
        users += rows
    for source in benchmarks:
        benchmark = read_benchmark(source, images)
        roots.setdefault(benchmark.images.resolve(), source)
        users += [
            {"sample_id": f"{item.item_id} of {source}", "images": list(item.images)}
            for item in read_items(benchmark)
            if item.images
        ]
    if len(roots) > 1:
        first, second = list(roots.values())[:2]
        raise InputError(f"{first} and {second} have different image roots; give one with --images")
    if not any(row["images"] for row in users):
        raise InputError(f"{', '.join(sources)}: no images to encode")
    return next(iter(roots)), users
