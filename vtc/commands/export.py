"""`vtc export`: runs for other programs."""

import click

from vtc.commands import options


@click.command("export")
@click.argument("run", type=click.Path())
@click.option(
    "--merge", is_flag=True, help="Write one whole model: LoRA merged, 4-bit weights made floating."
)
@click.option(
    "--to",
    "form",
    type=click.Choice(["hf-llava"]),
    help="hf-llava: transformers' own Llava, which needs no vtc (mlp runs alone).",
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Floating type of the weights: bf16 takes half the bytes of fp32.",
)
@click.option("--push", metavar="ORG/NAME", help="Upload the result, or RUN itself, to the hub.")
@click.option("--private", is_flag=True, help="With --push: a repository that others do not see.")
@options.config
@click.option("--force", is_flag=True, help="Overwrite an output that exists.")
@click.option("-o", "--out", help="Folder for the result.")
def export(run, merge, form, dtype, push, private, force, out) -> None:
    """Write a finished RUN as one whole model, or in another program's format; upload it.

    --merge gives a run folder again: it loads without the backbones, by vtc eval and by
    transformers' from_pretrained after `import vtc.model`. --to hf-llava gives a folder that
    transformers loads by itself, and with it programs that serve its Llava.

    \b
    Example:
      vtc export finetuned/qwen-tokenpacker-v16 --merge --dtype bf16 -o whole
      vtc export finetuned/vicuna-mlp-v576 --to hf-llava -o llava
    """
    if merge and form:
        raise click.UsageError("--merge and --to are two forms; give one")
    if (merge or form) and not out:
        raise click.UsageError("-o, the folder for the result, is missing")
    if not (merge or form or push):
        raise click.UsageError("nothing to do: give --merge, --to hf-llava or --push ORG/NAME")
    if out and not (merge or form):
        raise click.UsageError("-o needs --merge or --to")

    from vtc import console
    from vtc.tables.atomic import refuse_existing

    if out:
        refuse_existing(out, force, folder=True)

    import torch

    from vtc.model import export as forms

    if out:
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
        write = forms.to_hf_llava if form else forms.merge
        write(run, out, dtype=kind, force=force)
        console.say(f"wrote {out}")
    if push:
        from vtc.model.hub import push_folder

        console.say(f"uploaded {push_folder(out or run, push, private=private)}")
