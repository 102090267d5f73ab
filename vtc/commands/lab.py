"""`vtc lab`: a miniature world to run a study in."""

import click

from vtc.commands import options


@click.command("lab")
@click.argument("out", type=click.Path())
@click.option(
    "--preset",
    type=click.Choice(["tiny", "quick", "full"]),
    default="quick",
    show_default=True,
    help="tiny: untrained, for tests; quick: four LLM sizes; full: five.",
)
@options.seed
@click.option(
    "--train-backbones",
    is_flag=True,
    help="Train encoder and LLMs here instead of copying the shipped ones (seed 0 only).",
)
@click.option(
    "--encoder-objective",
    "objective",
    type=click.Choice(["both", "local", "caption"]),
    default="both",
    show_default=True,
    help="What the encoder is trained on: patch contents, captions, or both.",
)
@options.config
@click.option("--force", is_flag=True, help="Overwrite an output that exists.")
def lab(out, preset, seed, train_backbones, objective, force) -> None:
    """Write a miniature world to the folder OUT: images, conversations, benchmarks, backbones.

    The encoder is a CLIPVisionModel, the LLMs are Qwen2ForCausalLM, each in an ordinary folder.
    Scenes are asked for facts about their objects (reasoning), documents for single characters
    (OCR). Everything follows from the seed; world.json, written last, says what is there.

    \b
    Example:
      vtc lab world --preset quick
    """
    from vtc import console
    from vtc.tables.atomic import refuse_existing

    refuse_existing(out, force, folder=True)

    import torch

    from vtc.lab.backbones import Source
    from vtc.lab.presets import PRESETS
    from vtc.lab.world import write_world

    # The sums of a training depend on the number of threads; one thread makes them repeatable.
    torch.set_num_threads(1)
    about = write_world(
        out,
        PRESETS[preset],
        Source(seed, train_backbones, objective),
        force=force,
        progress=console.progress,
    )
    counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in about["counts"].items())
    console.say(f"wrote {out} ({counts}; {len(about['llms'])} LLMs)")
