"""Costs of every choice at once: arrays over LLMs and numbers of visual tokens, by device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtc.catalog.llms import LLM
from vtc.catalog.shapes import EncoderShape, LlmShape
from vtc.cost.inference import PHASES, Compressing, Held, Service, memory, work
from vtc.cost.roofline import Machine, spent
from vtc.recommend.measured import Measured

Array = NDArray[Any]
CompressorOf = Callable[[LlmShape, Sequence[int]], Compressing]
"""A compressor's costs for an LLM at several V."""


@dataclass(frozen=True)
class Device:
    """Where it runs: a GPU's name, what it reaches, what may be filled, what an hour costs.

    Without a machine nothing is timed, without `usable_bytes` everything fits.
    """

    gpu: str = ""
    machine: Machine | None = None
    usable_bytes: float | None = None
    usd_per_hour: float | None = None


@dataclass(frozen=True)
class Static:
    """What no device changes: FLOPs [phase, N, V] of one inference, memory [N, V] of the batch."""

    flops: Array
    held: Held
    works: tuple

    @property
    def total_flops(self) -> Array:
        """FLOPs of one inference [N, V]."""
        return self.flops.sum(axis=0)


@dataclass(frozen=True)
class Timed:
    """Costs on one device: seconds [phase, N, V] of the batch, and what binds each phase.

    `peak` [N, V] is the memory, measured where it was.
    """

    seconds: Array
    compute: Array
    measured: Array
    peak: Array

    @property
    def ttft(self) -> Array:
        """Seconds to the first token."""
        return self.seconds[:3].sum(axis=0)

    @property
    def latency(self) -> Array:
        """Seconds to the last token."""
        return self.seconds.sum(axis=0)


def static_costs(
    models: Sequence[tuple[LLM, LlmShape]],
    encoder: EncoderShape | None,
    compressor_of: CompressorOf,
    visual_tokens: Sequence[int],
    service: Service,
) -> Static:
    """The costs of every LLM at every V that hold on any device."""
    v = np.asarray(visual_tokens, dtype=float)
    works, held = [], []
    for _, shape in models:
        compressing = compressor_of(shape, visual_tokens)
        works.append(work(shape, encoder, compressing, v, service))
        held.append(memory(shape, encoder, compressing, v, service))
    flops = np.array([[parts[phase].flops for parts in works] for phase in PHASES])
    return Static(flops, Held(*(np.array(part) for part in zip(*held, strict=True))), tuple(works))


def timed_costs(
    static: Static,
    models: Sequence[tuple[LLM, LlmShape]],
    visual_tokens: Sequence[int],
    service: Service,
    device: Device,
    measured: Measured | None,
) -> Timed:
    """The costs on a device; what is neither modelled nor measured is nan."""
    seconds = np.full(static.flops.shape, np.nan)
    compute = np.zeros(static.flops.shape, dtype=bool)
    if device.machine is not None:
        for p, phase in enumerate(PHASES):
            flops = static.flops[p]
            moved = np.array([parts[phase].bytes for parts in static.works])
            found = spent(type(static.works[0][phase])(flops, moved), service.batch, device.machine)
            seconds[p], compute[p] = found.seconds, found.compute
    peak, known = static.held.peak.copy(), np.zeros(peak_shape(static), dtype=bool)
    if measured is not None:
        steps = max(service.generated_tokens - 1, 0)
        for m, (llm, _) in enumerate(models):
            for j, v in enumerate(visual_tokens):
                phases = measured.phases(device.gpu, llm.model, v, steps)
                for phase, value in phases.items():
                    seconds[PHASES.index(phase), m, j] = value
                held = measured.peak(device.gpu, llm.model, v)
                peak[m, j] = peak[m, j] if held is None else held
                known[m, j] = bool(phases) or held is not None
    # What takes no work takes no time, measured or not.
    seconds[(static.flops == 0) & np.isnan(seconds)] = 0.0
    return Timed(seconds, compute, known, peak)


def peak_shape(static: Static) -> tuple[int, ...]:
    """[N, V]."""
    return static.flops.shape[1:]
