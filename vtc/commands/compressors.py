"""`vtc compressors`: what each compressor makes of an encoder for an LLM, and at what cost."""

from collections.abc import Sequence
from typing import Any, NamedTuple

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
    from vtc.compress.choices import (
        KNOWN,
        check_asked,
        check_class_token,
        check_mergeable,
        check_name,
        check_some,
    )
    from vtc.compress.pruning import schedule_of
    from vtc.tables import specs
    from vtc.tables.write import check_output

    chosen = check_output(out, fmt, force)
    names = tuple(dict.fromkeys(names))
    for name in names:
        check_name(name)
    vision, text = encoders.shape(encoder), llms.shape(llm)
    for name in names:
        check_class_token(name, vision.class_token)
        check_mergeable(name, vision.mergeable)
    check_asked(names, vision.grid, visual_tokens or ())
    for name in names:
        schedule = KNOWN[name].schedule
        if schedule is not None:
            for number in visual_tokens or ():
                schedule_of(schedule, text.n_layers, vision.n_patches, {"average": number})
    check_some(names, vision.grid)
    asked = visual_tokens or sorted({1, 4, 16, 36, 64, 144, 576, vision.n_patches})

    from functools import partial

    from vtc.compress.listing import lacking, left_out, rows_of
    from vtc.cost.encoder import encoder_flops
    from vtc.errors import InputError

    for name in names:
        reason = lacking(name, vision)
        if reason:
            raise InputError(f"{name} {reason}; use another compressor, or a deeper encoder")

    models = (encoder, vision), (llm, text)
    rows = rows_of(names or KNOWN, *models, asked, partial(encoder_flops, vision))
    omitted = left_out(names or KNOWN, vision, text, asked)
    if omitted:
        console.say(omitted)
    if chosen == "table" and out == "-":
        unit = _unit(rows)
        shown = [v for v in asked if any(row["visual_tokens"] == v for row in rows)]
        _print(_a_line_each(rows, unit), shown, unit)
        for sentence in _beside(rows):
            console.say(sentence)
    else:
        options.emit(rows, specs.COMPRESSORS, out, fmt, force)


class Unit(NamedTuple):
    """A unit of FLOPs, and how many it is."""

    name: str
    size: float


_UNITS = (Unit("GFLOP", 1e9), Unit("MFLOP", 1e6), Unit("KFLOP", 1e3))


def _unit(rows: list[dict[str, Any]]) -> Unit:
    """The unit in which the largest FLOPs of a table are one at least."""
    most = max((max(row["flops"], row["flops_encoder"]) for row in rows), default=0)
    return next((unit for unit in _UNITS if most >= unit.size), _UNITS[-1])


def _print(lines: list[dict[str, Any]], shown: Sequence[int], unit: Unit) -> None:
    """Print the lines; on a narrow terminal short, with FLOPs at fewer V before needs go."""
    from vtc import console

    first, last = ["compressor", "supported", "n_params"], ["needs", "trained", "elastic"]
    headings = {f"{v}": f"{unit.name} at {v}" for v in shown}
    headings["flops_encoder"] = f"encoder's {unit.name}"
    each = [f"{v}" for v in shown]
    whole = [*first, *headings, "levels", *last, "source"]
    for columns in (whole, whole[:-1], [*first, *headings, *last]):
        if console.fits(lines, columns, headings):
            break
    else:
        lines = [{**line, "supported": _some(line["supported"], 3, 2)} for line in lines]
        headings |= {v: f"V = {v}" for v in each}
        columns = [*first, *each, *last]
        while each and not console.fits(lines, columns, headings):
            # From the middle on, so that the cheapest and the dearest stand longest.
            each.pop(len(each) // 2)
            columns = [*first, *each, *last]
        if each:
            console.say(f"V = ...: {unit.name} for one image")
    console.print_table(lines, columns, headings)
    console.say_left_out([headings.get(name, name) for name in whole if name not in columns])


def _some(supported: str, most: int, first: int) -> str:
    """The V of a compressor; of more than `most` (or ranges of them) the first and the last."""
    choices = supported.split(", ")
    if len(choices) <= most:
        return supported
    return ", ".join([*choices[:first], "...", choices[-1]])


def _a_line_each(rows: list[dict[str, Any]], unit: Unit) -> list[dict[str, Any]]:
    """The rows of each compressor as one line, its FLOPs under the number of tokens."""
    lines: dict[str, dict[str, Any]] = {}
    for row in rows:
        line = lines.setdefault(row["compressor"], {**row, "n_params": [], "flops_encoder": []})
        line["n_params"].append(row["n_params"])
        line["flops_encoder"].append(row["flops_encoder"])
        line[str(row["visual_tokens"])] = row["flops"] / unit.size
    for line in lines.values():
        line["supported"] = _some(line["supported"], _SHOWN, 3)
        line["n_params"] = _range(min(line["n_params"]), max(line["n_params"]))
        line["flops_encoder"] = _ends(set(line["flops_encoder"]), unit)
        needs = [what for what in ("query", "cls") if line[f"needs_{what}"]]
        needs += ["text"] * line["fuses_text"]
        line["needs"] = ", ".join(needs) or None
    return list(lines.values())


def _beside(rows: list[dict[str, Any]]) -> list[str]:
    """What those that read text take besides the FLOPs of an image, for which lines lack room."""
    costs: dict[str, set[int]] = {}
    for row in rows:
        if row["flops_query_token"]:
            costs.setdefault(row["compressor"], set()).add(row["flops_query_token"])
    return [
        f"{name}: besides, {_ends(found, unit)} {unit.name} for each token of the "
        f"{'question, which the LLM reads for it' if _queries(rows, name) else 'text, fused first'}"
        for name, found in costs.items()
        for unit in [next((one for one in _UNITS if max(found) >= one.size), _UNITS[-1])]
    ]


def _queries(rows: list[dict[str, Any]], name: str) -> bool:
    return any(row["needs_query"] for row in rows if row["compressor"] == name)


def _ends(costs: set[int], unit: Unit) -> str:
    """The least and the most of some FLOPs, in a unit; once if they read the same."""
    return " to ".join(dict.fromkeys(f"{end / unit.size:.3g}" for end in (min(costs), max(costs))))


def _range(least: int, most: int) -> str:
    """Two counts in one unit, that of the larger; once if they read the same."""
    if most < 1e5:
        return " to ".join(dict.fromkeys((f"{least}", f"{most}")))
    return " to ".join(dict.fromkeys(_millions(count) for count in (least, most))) + "M"


def _millions(count: int) -> str:
    if count >= 1e8:
        return f"{count / 1e6:.0f}"
    return f"{count / 1e6:.1f}" if count >= 5e4 else f"{count / 1e6:.2g}"
