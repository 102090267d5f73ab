"""What one inference of a cell costs in all: encoder, compressor, question, LLM."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vtc.catalog.shapes import EncoderShape, LlmShape
from vtc.compare.cells import Cell
from vtc.cost.compressor import InferenceCost
from vtc.cost.encoder import encoder_flops
from vtc.cost.llm import prefill_flops
from vtc.cost.query import query_flops
from vtc.errors import InputError
from vtc.tables import specs
from vtc.tables.read import read_rows, title


class Price(NamedTuple):
    """FLOPs of one inference by what does them; two a multiply-add."""

    encoder: float
    compressor: float
    query: float
    prefill: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self)


PriceOf = Callable[[Cell], Price | None]
"""The price of a cell; None where its models' shapes are not known."""


def price(
    llm: LlmShape,
    encoder: EncoderShape,
    stated: InferenceCost,
    visual_tokens: int,
    text_tokens: float,
) -> Price:
    """One image and `text_tokens` behind its tokens, up to the first answer token.

    A compressor that needs the question has the LLM read it once more, without the head; one that
    fuses text with the image runs its own layers over it.
    """
    a_token, a_pair = stated.text_flops
    reading = float(a_token * text_tokens + a_pair * text_tokens**2)
    if stated.needs_query and text_tokens:
        reading += query_flops(llm, text_tokens)
    return Price(
        float(encoder_flops(encoder, stated.level, stated.patches_left)),
        float(stated.flops),
        reading,
        prefill_flops(llm, visual_tokens + text_tokens, attention="causal"),
    )


class Times(NamedTuple):
    """Milliseconds to the first answer token, by (LLM, compressor, V); names in lower case."""

    name: str
    device: str | None
    by_cell: Mapping[tuple[str, str, int], float]

    def of(self, cell: Cell) -> float | None:
        """The time of a cell, which may be measured on one of its runs or on its LLM."""
        subjects = [run.run_id for run in cell.runs] + [cell.field.backbone]
        known = [
            self.by_cell.get((_key(subject), cell.compressor, cell.visual_tokens))
            for subject in subjects
        ]
        return next((time for time in known if time is not None), None)


_PHASES = ("encoder_ms", "projector_ms", "prefill_ms")


def read_times(paths: Sequence[str], text_tokens: float, device: str | None = None) -> Times:
    """Times of costs tables at batch 1, one image and this many text tokens.

    Rows that lack encoder, compressor or prefill are left out; several of one cell are averaged.
    Raises InputError for a table that is none, if nothing is left, and for several devices of
    which none is named.
    """
    name = ", ".join(map(title, paths))
    rows = [row for path in paths for row in read_rows(path, specs.COSTS).rows]
    devices = sorted({row["device"] for row in rows if row["device"]})
    if device is not None and device not in devices:
        raise InputError(
            f"--costs {name} has no device '{device}'; it has {', '.join(devices) or 'none'}"
        )
    if device is None and len(devices) > 1:
        raise InputError(
            f"--costs {name} holds {len(devices)} devices ({', '.join(devices)}); name one "
            "with --device"
        )
    kept: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        alike = row["text_tokens"] == text_tokens and not row["cached_prefix"]
        single = (row["batch"] or 1) == 1 and (row["images"] or 1) == 1
        here = device is None or row["device"] in (None, device)
        parts = [row[name] for name in _PHASES]
        if alike and single and here and row["compressor"] and None not in parts:
            key = (_key(row["subject"]), row["compressor"], row["visual_tokens"])
            kept.setdefault(key, []).append(sum(parts))
    if not kept:
        raise InputError(_nothing_left(name, rows, text_tokens))
    means = {key: sum(times) / len(times) for key, times in kept.items()}
    return Times(name, device or (devices[0] if devices else None), means)


def _nothing_left(name: str, rows: Sequence[Mapping[str, Any]], text_tokens: float) -> str:
    asked = sorted({row["text_tokens"] for row in rows})
    return (
        f"--costs {name}: no row has encoder, compressor and prefill at batch 1, one image and "
        f"{text_tokens:g} text tokens (--q); it has text tokens "
        f"{', '.join(f'{tokens:g}' for tokens in asked) or 'of no row'}"
    )


def _key(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()
