"""`vtc import`: models of others as runs."""

import click

from vtc.commands import options


@click.command("import")
@click.argument("source")
@click.option(
    "--encoder",
    help="Vision encoder of an original checkpoint. [default: the one its config.json names]",
)
@click.option(
    "--llm-name",
    help="What the LLM is called in scores, such as vicuna-7b-v1.5. [default: its own]",
)
@click.option(
    "--chat-template",
    help="Chat template: a name such as vicuna, or a file. [default: its own; of Llama's, vicuna]",
)
@click.option(
    "--allow-bin", is_flag=True, help="Open weights in .bin files (pickles), as tensors alone."
)
@options.config
@click.option("--force", is_flag=True, help="Overwrite a run that exists.")
@click.option("-o", "--out", required=True, help="Folder of the run.")
def import_model(source, encoder, llm_name, chat_template, allow_bin, force, out) -> None:
    """Make a run of a LLaVA-1.5: transformers' (llava-hf) or the original code's.

    SOURCE is a folder or a hub id. The run holds the whole model, of the mlp compressor at all
    patch tokens, its weights in safetensors and in their own types; vtc eval, show and finetune
    take it as any other.

    \b
    Example:
      vtc import llava-hf/llava-1.5-7b-hf -o runs/llava-1.5-7b
      vtc import llava-v1.5-7b --encoder clip-vit-large-patch14-336 --allow-bin -o runs/llava
    """
    from vtc.tables.atomic import refuse_existing

    refuse_existing(out, force)

    from vtc import console
    from vtc.model.importing import import_run
    from vtc.tables.provenance import footer

    settings = {"source": source, "encoder": encoder, "chat_template": chat_template}
    manifest = import_run(
        source,
        out,
        encoder=encoder,
        llm_name=llm_name,
        chat_template=chat_template,
        allow_bin=allow_bin,
        footer=footer(settings=settings),
        force=force,
    )
    llm = manifest["llm"]
    console.say(
        f"wrote {out}: {llm['name']} ({llm['n_params'] / 1e9:.3g} billion parameters), "
        f"{manifest['visual_tokens']} visual tokens"
    )
