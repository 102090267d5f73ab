"""`vtc compressors`: what each compressor makes of an encoder for an LLM, and at what cost."""

from typing import Any

import click

from vtc.commands import options

_SHOWN = 8


@click.command("compressors")
@click.argument("names", nargs=-1)
@click.option(
    "--encoder",
    default="openai/clip-vit-large-patch14-336",
    show_default=True,
    help="Vision encoder: a folder or a name of the catalog.",
)
@click.option(
    "--llm",
    default="Qwen1.5-0.5B",
    show_default=True,
    help="LLM: a folder or a name of the catalog.",
)
@click.option(
    "--visual-tokens",
    type=options.Numbers(),
    help="V to state costs at. [default: 1,4,16,36,64,144,576 and the number of patches]",
)
@options.config
@options.output
def compressors(names, encoder, llm, visual_tokens, out, fmt, force) -> None:
    """List the compressors, or those NAMED: V, parameters, FLOPs, needs, source.

    No weights are loaded. FLOPs are the compressor's for one image, multiply-adds counted as two;
    one that needs the question runs the LLM on it besides. The table has a row a compressor;
    other formats have a row a compressor and V. docs/compressors.md says what each does.

    \b
    Example:
      vtc compressors
      vtc compressors tokenpacker mqt --llm Vicuna-7B-v1.5 --visual-tokens 1,16 --format csv
    """
    from vtc import console
    from vtc.catalog import encoders, llms
    from vtc.compress.choices import KNOWN, check_asked, check_class_token, check_name
    from vtc.compress.pruning import schedule_of
    from vtc.tables import specs
    from vtc.tables.write import check_output

    chosen = check_output(out, fmt, force)
    for name in names:
        check_name(name)
    vision, text = encoders.shape(encoder), llms.shape(llm)
    for name in names:
        check_class_token(name, vision.class_token)
    check_asked(names, vision.grid, visual_tokens or ())
    for name in names:
        schedule = KNOWN[name].schedule
        if schedule is not None:
            for number in visual_tokens or ():
                schedule_of(schedule, text.n_layers, vision.n_patches, {"average": number})
    asked = visual_tokens or sorted({1, 4, 16, 36, 64, 144, 576, vision.n_patches})

    from functools import partial

    from vtc.compress.listing import left_out, rows_of
    from vtc.cost.encoder import encoder_flops

    models = (encoder, vision), (llm, text)
    rows = rows_of(names or KNOWN, *models, asked, partial(encoder_flops, vision))
    omitted = left_out(names or KNOWN, vision, text, asked)
    if omitted:
        console.say(omitted)
    if chosen == "table" and out == "-":
        shown = [v for v in asked if any(row["visual_tokens"] == v for row in rows)]
        columns = ["compressor", "supported", "n_params"]
        headings = {f"{v}": f"GFLOP at {v}" for v in shown}
        headings["flops_encoder"] = "encoder's GFLOP"
        last = ["levels", "needs", "trained", "elastic", "source"]
        console.print_table(_a_line_each(rows), [*columns, *headings, *last], headings)
        for sentence in _beside(rows):
            console.say(sentence)
    else:
        options.emit(rows, specs.COMPRESSORS, out, fmt, force)


def _a_line_each(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of each compressor as one line, its FLOPs under the number of tokens."""
    lines: dict[str, dict[str, Any]] = {}
    for row in rows:
        line = lines.setdefault(row["compressor"], {**row, "n_params": [], "flops_encoder": []})
        line["n_params"].append(row["n_params"])
        line["flops_encoder"].append(row["flops_encoder"])
        line[str(row["visual_tokens"])] = row["flops"] / 1e9
    for line in lines.values():
        choices = line["supported"].split(", ")
        if len(choices) > _SHOWN:
            line["supported"] = ", ".join([*choices[:3], "...", choices[-1]])
        line["n_params"] = _range(min(line["n_params"]), max(line["n_params"]))
        line["flops_encoder"] = _ends(set(line["flops_encoder"]))
        needs = [what for what in ("query", "cls") if line[f"needs_{what}"]]
        needs += ["text"] * line["fuses_text"]
        line["needs"] = ", ".join(needs) or None
    return list(lines.values())


def _beside(rows: list[dict[str, Any]]) -> list[str]:
    """What those that read text take besides the FLOPs of an image, for which lines lack room."""
    costs: dict[str, set[float]] = {}
    for row in rows:
        if row["flops_query_token"]:
            costs.setdefault(row["compressor"], set()).add(row["flops_query_token"])
    return [
        f"{name}: besides, {_ends(found)} GFLOP for each token of the "
        f"{'question, which the LLM reads for it' if _queries(rows, name) else 'text, fused first'}"
        for name, found in costs.items()
    ]


def _queries(rows: list[dict[str, Any]], name: str) -> bool:
    return any(row["needs_query"] for row in rows if row["compressor"] == name)


def _ends(costs: set[float]) -> str:
    """The least and the most of some FLOPs, in GFLOP; once if they read the same."""
    return " to ".join(dict.fromkeys(f"{end / 1e9:.3g}" for end in (min(costs), max(costs))))


def _range(least: int, most: int) -> str:
    """Two counts in one unit, that of the larger; once if they read the same."""
    if most < 1e5:
        return " to ".join(dict.fromkeys((f"{least}", f"{most}")))
    millions = [
        f"{count / 1e6:.1f}" if count >= 5e4 else f"{count / 1e6:.2g}" for count in (least, most)
    ]
    return " to ".join(dict.fromkeys(millions)) + "M"
