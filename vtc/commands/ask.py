"""`vtc ask`: a run answers one question."""

import click

from vtc.commands import options, preflight
from vtc.commands.refit import asked, folders_of, refit_options


@click.command("ask")
@click.argument("run", type=click.Path())
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@click.argument("question")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Longest answer, in tokens.",
)
@refit_options
@click.option(
    "--visual-tokens",
    type=click.IntRange(1),
    help="Visual tokens an image, of --compressor, or of a run whose compressor serves "
    "several. [default: the run's]",
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Floating type. [default: bf16 on a GPU, else fp32]",
)
@click.option("--load-4bit", is_flag=True, help="Load the LLM's linear layers in 4 bits (nf4).")
@click.option("--device", help="Device, such as cpu or cuda. [default: cuda where there is one]")
@options.config
def ask(
    run, images, question, max_new_tokens, compressor, compressor_settings, reference_behaviour,
    visual_tokens, dtype, load_4bit, device,
) -> None:  # fmt: skip
    """Let a finished RUN answer one QUESTION about images, or about none.

    The answer goes to stdout word by word as it is generated, greedily. Without an IMAGE, or with
    `-` in its place, the question is text alone. Several images go before the question, or where
    it has a mark <image> for each.

    \b
    Example:
      vtc ask runs/tokenpacker-v16 photo.jpg "What colour is the car?"
      vtc ask llava photo.jpg "What is this?" --compressor visionzip --visual-tokens 64
      vtc ask runs/tokenpacker-v16 a.png b.png "Which of the two is brighter?"
    """
    import time
    from pathlib import Path

    from vtc import console
    from vtc.compress.serving import untrained
    from vtc.data.images import ImageFault, open_image
    from vtc.errors import InputError

    wanted = asked(compressor, compressor_settings, visual_tokens, reference_behaviour)
    preflight.check_run(run)
    if visual_tokens and wanted is None:
        preflight.check_served(run, [visual_tokens])
    if not question.strip():
        raise InputError("the question is empty")
    if Path(question).is_file():
        raise InputError(f"{question} is a file: the question is missing, give it last, in quotes")
    pictures = []
    for path in (Path(image) for image in images if image != "-"):
        try:
            pictures.append(open_image(path.parent, path.name))
        except ImageFault as fault:
            raise InputError(f"image {path}: {fault.reason}") from None

    from vtc.evaluate.runner import settings
    from vtc.model import asking
    from vtc.model.run import load_run

    how = settings(1, dtype, device, four_bit=load_4bit)
    (folder,) = folders_of([run], wanted)
    loaded = load_run(folder, dtype=how.dtype, device=how.device, four_bit=load_4bit or None)
    asking.serve_at(loaded, None if wanted else visual_tokens)
    own = loaded.manifest["visual_tokens"]
    if words := untrained(run, loaded.manifest, [own if wanted else visual_tokens or own]):
        console.say(words)
    start = time.perf_counter()

    def show(piece: str) -> None:
        click.echo(piece, nl=False)

    answer = asking.ask(loaded, question, pictures, max_new_tokens, show)
    click.echo()
    seconds = time.perf_counter() - start
    seen = f"{len(pictures)} x {loaded.processor.visual_tokens} visual tokens, "
    console.say(f"{seen if pictures else ''}{answer.n_generated} tokens in {seconds:.2f} s")
