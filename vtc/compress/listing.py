"""Rows about the compressors: what each makes of an encoder for an LLM, and at what cost."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from vtc.catalog.shapes import EncoderShape, LlmShape
from vtc.compress.choices import KNOWN, listed
from vtc.compress.pruning import averages
from vtc.compress.registry import build, find, shape_arguments


def rows_of(
    names: Iterable[str],
    encoder: tuple[str, EncoderShape],
    llm: tuple[str, LlmShape],
    visual_tokens: Sequence[int],
    encoder_flops: Callable[[int, Sequence[int]], int],
) -> list[dict[str, Any]]:
    """A row of the table COMPRESSORS for each compressor and each V that it supports.

    Those that need of the encoder what it does not have (`lacking`) are left out. V of one that
    drops tokens inside the LLM is the most that a layer has on average. `encoder_flops` are those
    of the encoder up to a hidden state, with so many patches left behind each layer, if they merge.
    """
    vision, text = encoder[1], llm[1]
    rows = []
    for name in names:
        kind, schedule = find(name), KNOWN[name].schedule
        supported = supported_of(name, vision, text)
        if lacking(name, vision):
            continue
        for number in (v for v in visual_tokens if v in supported):
            with torch.device("meta"):
                compressor = build(
                    name,
                    **shape_arguments(vision, text.hidden_size),
                    visual_tokens=number if schedule is None else vision.n_patches,
                    settings=None if schedule is None else {"average": number},
                )
            levels = compressor.request.levels
            rows.append(
                {
                    "compressor": name,
                    "encoder": encoder[0],
                    "llm": llm[0],
                    "supported": listed(supported),
                    "visual_tokens": number,
                    "n_params": sum(weight.numel() for weight in compressor.parameters()),
                    "flops": compressor.flops(),
                    "flops_query_token": 2 * text.n_matmul * kind.needs_query
                    + sum(compressor.text_flops()),
                    "flops_encoder": encoder_flops(levels[-1], compressor.patches_left),
                    "levels": ", ".join(map(str, compressor.request.levels)),
                    "needs_query": kind.needs_query,
                    "fuses_text": kind.fuses,
                    "needs_cls": kind.needs_cls,
                    "trained": kind.trained,
                    "elastic": kind.elastic,
                    "source": kind.source,
                }
            )
    return rows


def supported_of(name: str, vision: EncoderShape, text: LlmShape) -> list[int]:
    """The V that a compressor can make; of one that drops tokens inside the LLM, its averages."""
    known = KNOWN[name]
    if known.schedule is None:
        return known.supported(vision.grid)
    return averages(known.schedule, text.n_layers, vision.n_patches)


def left_out(
    names: Iterable[str], vision: EncoderShape, text: LlmShape, visual_tokens: Sequence[int]
) -> str | None:
    """Those of which `rows_of` has no row, and why, as a sentence; None without any."""
    rows, columns = vision.grid
    unfit: dict[str, list[str]] = {}
    others = []
    for name in names:
        supported, reason = supported_of(name, vision, text), lacking(name, vision)
        if not supported:
            reason = f"of square grids of patches alone; this encoder's is {rows}x{columns}"
        if reason:
            unfit.setdefault(reason, []).append(name)
        elif not set(supported) & set(visual_tokens):
            others.append(f"{name} (makes {listed(supported)})")
    reasons = [f"{', '.join(which)} ({reason})" for reason, which in unfit.items()]
    if others:
        reasons.append(f"{', '.join(others)}, none of the V asked for")
    return f"left out: {'; '.join(reasons)}" if reasons else None


def lacking(name: str, vision: EncoderShape) -> str | None:
    """What a compressor needs of the encoder that it does not have; None where it has all."""
    known = KNOWN[name]
    if known.needs_cls and not vision.class_token:
        return "by the class token, which this encoder does not have"
    if known.merges and not vision.mergeable:
        return "merges inside CLIP's and SigLIP's encoders alone"
    if known.merges and vision.n_layers < 2:
        return "merges in the encoder's layers but the last, and this one has no other"
    return None
