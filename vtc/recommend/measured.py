"""Measured costs in place of modelled ones, where there are any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtc.catalog import gpus, llms
from vtc.cost.inference import Service
from vtc.errors import InputError
from vtc.tables import specs
from vtc.tables.read import read_rows, title

_PHASES = {"encoder_ms": "encoder", "projector_ms": "compressor", "prefill_ms": "prefill"}
# Types that are what --weights calls bf16: nothing is quantised.
_UNQUANTISED = {"fp32": "bf16", "fp16": "bf16"}
_DECODE, _PEAK = "decode_ms_per_token", "peak_bytes"


@dataclass(frozen=True)
class Measured:
    """Rows of the costs table for one service, by device, LLM and V; `types` of their weights."""

    name: str
    rows: Mapping[tuple[str, str, int], Mapping[str, float]]
    n_rows: int
    types: tuple[str, ...] = ()

    def phases(self, gpu: str, model: str, visual_tokens: int, steps: float) -> dict[str, float]:
        """Seconds of the phases that were measured, of `steps` tokens generated after the first."""
        row = self._row(gpu, model, visual_tokens)
        found = {phase: row[name] / 1e3 for name, phase in _PHASES.items() if name in row}
        if _DECODE in row:
            found["decode"] = steps * row[_DECODE] / 1e3
        return found

    def peak(self, gpu: str, model: str, visual_tokens: int) -> float | None:
        """The most bytes held, if that was measured."""
        return self._row(gpu, model, visual_tokens).get(_PEAK)

    def _row(self, gpu: str, model: str, visual_tokens: int) -> Mapping[str, float]:
        key = _key(model)
        own = self.rows.get((gpu, key, visual_tokens))
        return own or self.rows.get(("", key, visual_tokens), {})


def read_costs(
    path: str,
    service: Service,
    encoder: str | None,
    compressor: str | None,
    asked_gpu: bool = True,
) -> Measured:
    """The rows of a costs table that were measured at this service; several are averaged.

    A row for another batch, text, prefix, type or encoder is left out; a row of another compressor
    keeps its prefill, decode and encoder. Where no GPU was asked for, the one device of the table
    is meant. Raises InputError for a table that is none, or of which nothing is left, saying what
    it holds, and for one of several devices where none was asked for.
    """
    rows = read_rows(path, specs.COSTS).rows
    devices = sorted({row["device"] for row in rows if row["device"]})
    if not asked_gpu and len(devices) > 1:
        raise InputError(
            f"--costs {title(path)} holds {len(devices)} devices ({', '.join(devices)}); name one "
            "with --gpu, or split the table"
        )
    kept: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if _matches(row, service):
            own = dict(row)
            if row["encoder"] and encoder and _key(row["encoder"]) != _key(encoder):
                own |= {"encoder_ms": None, "projector_ms": None, _PEAK: None}
            if row["compressor"] and compressor and row["compressor"] != compressor:
                own |= {"projector_ms": None, _PEAK: None}
            device = _device(row["device"]) if asked_gpu else ""
            key = (device, _key(row["subject"]), row["visual_tokens"])
            kept.setdefault(key, []).append(own)
    if not kept:
        raise InputError(_nothing_left(title(path), rows, service))
    means = {key: _means(found) for key, found in kept.items()}
    types = {row["dtype"] for found in kept.values() for row in found} - {None}
    return Measured(title(path), means, sum(map(len, kept.values())), tuple(sorted(types)))


def _matches(row: Mapping[str, Any], service: Service) -> bool:
    kept = _UNQUANTISED.get(row["dtype"], row["dtype"])
    return (
        (row["batch"] or 1) == service.batch
        and (row["images"] or 1) == service.images
        and row["text_tokens"] == service.text_tokens
        and (row["cached_prefix"] or 0) == service.cached_tokens
        and kept in (None, service.weights)
    )


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found = {}
    for name in (*_PHASES, _DECODE, _PEAK):
        values = [row[name] for row in rows if row[name] is not None]
        if values:
            found[name] = sum(values) / len(values)
    return found


def _nothing_left(name: str, rows: Sequence[Mapping[str, Any]], service: Service) -> str:
    row = rows[0]
    return (
        f"--costs {name}: none of its {len(rows)} rows was measured at batch {service.batch}, "
        f"{service.text_tokens:g} text tokens, {service.cached_tokens:g} cached and "
        f"{service.weights} weights; its first is at batch {row['batch'] or 1}, "
        f"{row['text_tokens']:g}, {row['cached_prefix'] or 0:g} and {row['dtype'] or 'any'}"
    )


def _device(name: str | None) -> str:
    """What the catalog calls a device, where it knows it."""
    if not name:
        return ""
    try:
        return gpus.find(name).gpu
    except InputError:
        return name


def _key(name: str) -> str:
    """An LLM by what the catalog calls it, an encoder by the last part of its name."""
    known = llms.find(name)
    return known.model.lower() if known else name.rstrip("/").rsplit("/", 1)[-1].lower()
