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
    "--llm",
    help="LLM of a folder with mm_projector.bin alone. [default: the one its config.json names]",
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
@click.option(
    "--compressor",
    help="What the projector is: m3 takes LLaVA-1.5's for any V. [default: told by its weights]",
)
@click.option(
    "--visual-tokens",
    type=click.IntRange(1),
    help="V of the run, where its weights serve several (tokenpacker, mqt, m3). [default: the "
    "checkpoint's]",
)
@click.option(
    "--compressor-setting",
    "compressor_settings",
    type=options.Setting(),
    multiple=True,
    help="A setting of the compressor, such as query=area (docs/compressors.md).",
)
@click.option(
    "--reference-behaviour",
    is_flag=True,
    help="Compress for the question that the released QueCC takes, the first about an image.",
)
@options.config
@click.option("--force", is_flag=True, help="Overwrite a run that exists.")
@click.option("-o", "--out", required=True, help="Folder of the run.")
def import_model(
    source, encoder, llm, llm_name, chat_template, allow_bin, compressor, visual_tokens,
    compressor_settings, reference_behaviour, force, out,
) -> None:  # fmt: skip
    """Make a run of a LLaVA-1.5, TokenPacker, QueCC, MQT or M3.

    SOURCE is a folder or a hub id: transformers' LLaVA-1.5 (llava-hf), or a checkpoint of the
    original code. The run holds the whole model, its weights in safetensors and in their own types;
    vtc eval, ask, show and finetune take it as any other. A folder with a projector alone
    (mm_projector.bin, query_abstractor.bin, non_lora_trainables.bin) becomes a run that stands on
    its encoder and LLM.

    \b
    Example:
      vtc import llava-hf/llava-1.5-7b-hf -o runs/llava-1.5-7b
      vtc import llava-v1.5-7b --encoder clip-vit-large-patch14-336 --allow-bin -o runs/llava
      vtc import tokenpacker-7b --encoder clip-vit-large-patch14-336 -o runs/tokenpacker-v144
    """
    from vtc.tables.atomic import refuse_existing

    refuse_existing(out, force, folder=True)

    from vtc import console
    from vtc.compress.serving import untrained
    from vtc.model.importing import import_run
    from vtc.model.original_projector import Wish
    from vtc.tables.provenance import footer

    wish = Wish(compressor, visual_tokens, dict(compressor_settings), reference_behaviour)
    settings = {"source": source, "encoder": encoder, "chat_template": chat_template}
    asked = {"llm": llm, "compressor": compressor, "visual_tokens": visual_tokens}
    asked |= {"compressor_settings": wish.settings, "reference_behaviour": wish.reference}
    settings |= {name: value for name, value in asked.items() if value}
    manifest = import_run(
        source,
        out,
        encoder=encoder,
        llm=llm,
        llm_name=llm_name,
        chat_template=chat_template,
        wish=wish,
        allow_bin=allow_bin,
        footer=footer(settings=settings),
        force=force,
        say=console.say,
    )
    llm = manifest["llm"]
    console.say(
        f"wrote {out}: {llm['name']} ({llm['n_params'] / 1e9:.3g} billion parameters), "
        f"{manifest['compressor']}, {manifest['visual_tokens']} visual tokens"
    )
    if words := untrained(out, manifest, [manifest["visual_tokens"]]):
        console.say(words)
