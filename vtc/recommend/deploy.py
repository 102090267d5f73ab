"""Real choices under real costs: the lowest error within a budget of FLOPs, time or money.

Everything is vectorised over LLMs and numbers of visual tokens; a device is one pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from vtc.catalog import llms
from vtc.catalog.llms import LLM
from vtc.catalog.shapes import EncoderShape, LlmShape
from vtc.cost.inference import PHASES, Service
from vtc.errors import InputError
from vtc.recommend.grid import (
    Array,
    CompressorOf,
    Device,
    Static,
    Timed,
    static_costs,
    timed_costs,
)
from vtc.recommend.laws import Mix, refuse_meaningless
from vtc.recommend.measured import Measured
from vtc.recommend.models import with_shapes
from vtc.recommend.odds import best_shares, wasted

Objective = Literal["flops", "ttft", "latency", "throughput", "cost"]
OBJECTIVES: tuple[Objective, ...] = ("flops", "ttft", "latency", "throughput", "cost")


@dataclass(frozen=True)
class Deployment:
    """What is asked: a law, real choices, one inference, where it runs, and what it may cost.

    `limits` are budgets: flops an inference; ttft and latency in seconds; throughput, at least so
    many images a second; cost, USD an image. All must hold; `objective` is the one that choices
    are compared by. `encoder` and `compressor` are names, empty for none.
    """

    law: Mix
    models: Sequence[LLM]
    visual_tokens: Sequence[int]
    service: Service
    limits: Mapping[str, float]
    objective: Objective
    devices: Sequence[Device]
    encoder: str
    encoder_shape: EncoderShape | None
    compressor: str
    compressor_of: CompressorOf
    measured: Measured | None = None
    top: int = 5

    def __post_init__(self) -> None:
        if self.objective not in self.limits:
            raise InputError(f"objective {self.objective} has no budget")

    @cached_property
    def shaped(self) -> list[tuple[LLM, LlmShape]]:
        """The LLMs with their shapes."""
        return with_shapes(self.models)

    @cached_property
    def counts(self) -> list[int]:
        """N of the LLMs, as the law counts it."""
        return llms.counts(self.models, self.law.row["n_convention"])


@dataclass(frozen=True)
class View:
    """One device: costs of all choices, their errors [N, V], what fits, and the best rows.

    `costs` has an array [N, V] an objective; throughput stands as seconds an image.
    """

    device: Device
    timed: Timed
    errors: Array
    costs: Mapping[str, Array]
    in_memory: Array
    in_budget: Array
    rows: list[dict[str, Any]]

    @property
    def fits(self) -> Array:
        """Whether a choice holds every budget and the memory."""
        return self.in_memory & self.in_budget


@dataclass(frozen=True)
class Advice:
    """The answer: a view a device, and what they share."""

    static: Static
    views: list[View]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The best choices of each device in turn."""
        return [row for view in self.views for row in view.rows]


def advise(question: Deployment) -> Advice:
    """Rank every choice on every device by its predicted error, ties by what they cost.

    A device on which nothing fits has no rows: `faults.why_nothing_fits` says why. Raises
    NoAnswerError if the law cannot choose.
    """
    q = question
    refuse_meaningless(q.law, q.counts)
    static = static_costs(q.shaped, q.encoder_shape, q.compressor_of, q.visual_tokens, q.service)
    errors = q.law.errors(q.counts, q.visual_tokens)
    return Advice(static, [_view(q, static, errors, device) for device in q.devices])


def limit_of(objective: str, limits: Mapping[str, float]) -> float:
    """A budget as its costs are kept: of throughput, seconds an image."""
    return 1 / limits[objective] if objective == "throughput" else limits[objective]


def place_of_least(values: Array) -> tuple[int, int]:
    """Where an array [N, V] is smallest."""
    n, v = np.unravel_index(int(values.argmin()), values.shape)
    return int(n), int(v)


def _view(q: Deployment, static: Static, errors: Array, device: Device) -> View:
    timed = timed_costs(static, q.shaped, q.visual_tokens, q.service, device, q.measured)
    an_image = timed.latency / (q.service.batch * q.service.images)
    costs = {
        "flops": static.total_flops,
        "ttft": timed.ttft,
        "latency": timed.latency,
        "throughput": an_image,
    }
    if device.usd_per_hour is not None:
        costs["cost"] = an_image * device.usd_per_hour / 3600
    in_budget = np.ones(errors.shape, dtype=bool)
    for objective in q.limits:
        # Comparison with nan, a time that nobody knows, is false.
        in_budget &= costs[objective] <= limit_of(objective, q.limits)
    usable = np.inf if device.usable_bytes is None else device.usable_bytes
    view = View(device, timed, errors, costs, timed.peak <= usable, in_budget, [])
    view.rows.extend(_ranked(q, static, view))
    return view


def _ranked(q: Deployment, static: Static, view: View) -> list[dict[str, Any]]:
    fitting = np.flatnonzero(view.fits)
    if not fitting.size:
        return []
    error, cost = view.errors.ravel()[fitting], view.costs[q.objective].ravel()[fitting]
    order = np.lexsort((cost, error))
    fitting, error, cost = fitting[order], error[order], cost[order]
    places = [divmod(int(at), len(q.visual_tokens)) for at in fitting[: q.top]]
    shares = best_shares(q.law, _ends(q, view.fits))
    waste = wasted(error.tolist(), cost.tolist(), q.top)
    return [
        _row(q, static, view, places[0], place, rank, share, shares)
        for rank, (place, share) in enumerate(zip(places, waste, strict=False), start=1)
    ]


def _ends(q: Deployment, fits: Array) -> list[tuple[int, int]]:
    """(N, V) at the fewest and the most V at which each LLM fits: none between is ever the best."""
    every = np.asarray(q.visual_tokens)
    return [
        (n_params, int(end))
        for n_params, mask in zip(q.counts, fits, strict=True)
        if mask.any()
        for end in {every[mask].min(), every[mask].max()}
    ]


def _row(
    q: Deployment,
    static: Static,
    view: View,
    best: tuple[int, int],
    place: tuple[int, int],
    rank: int,
    waste: float,
    shares: Mapping[tuple[float, float], float],
) -> dict[str, Any]:
    m, j = place
    n_params, v, s = q.counts[m], q.visual_tokens[j], q.service
    low, high = q.law.interval(n_params, v) or (None, None)
    row: dict[str, Any] = {
        "rank": rank,
        "gpu": view.device.gpu or None,
        "model": q.models[m].model,
        "n_params": n_params,
        "visual_tokens": v,
        "error": float(view.errors[place]),
        "error_low": low,
        "error_high": high,
        "error_log_linear": q.law.rival_error(n_params, v),
        "p_best": shares.get((n_params, v), 0.0) if shares else None,
        "regret": float(view.errors[place] - view.errors[best]),
        "wasted": waste,
        "extrapolates": not q.law.covers(n_params, v),
        "objective": q.objective,
        "budget_share": float(view.costs[q.objective][place] / limit_of(q.objective, q.limits)),
        "cost_model": "exact",
        "flops": float(static.total_flops[place]),
        "measured": bool(view.timed.measured[place]),
        "fits": None if view.device.usable_bytes is None else True,
        "weights": s.weights,
        "kv": s.kv,
        "encoder": q.encoder or None,
        "compressor": q.compressor or None,
        "batch": s.batch,
        "images": s.images,
        "text_tokens": s.text_tokens,
        "cached_tokens": s.cached_tokens,
        "generated_tokens": s.generated_tokens,
        "task": q.law.task,
        "law": q.law.name,
    }
    for name, part in zip(static.held._fields, static.held, strict=True):
        row[f"memory_{name}"] = int(part[place])
    row["memory_peak"] = int(view.timed.peak[place])
    for p, phase in enumerate(PHASES):
        row[f"flops_{phase}"] = float(static.flops[p][place])
    return row | _times(view, place, q.objective)


def _times(view: View, place: tuple[int, int], objective: Objective) -> dict[str, Any]:
    """The columns of time of a choice, if it is known."""
    timed = view.timed
    if not np.isfinite(timed.latency[place]):
        return {}
    found: dict[str, Any] = {
        f"{phase}_ms": 1e3 * float(timed.seconds[p][place]) for p, phase in enumerate(PHASES)
    }
    # Decoding, the last phase, comes after the first token.
    counted = slice(-1) if objective == "ttft" else slice(None)
    longest = int(timed.seconds[(counted, *place)].argmax())
    what = "compute" if timed.compute[(longest, *place)] else "bandwidth"
    found |= {
        "ttft_ms": 1e3 * float(timed.ttft[place]),
        "latency_ms": 1e3 * float(timed.latency[place]),
        "bound": f"{PHASES[longest]}: {'measured' if timed.measured[place] else what}",
        "images_per_s": 1 / float(view.costs["throughput"][place]),
    }
    if "cost" in view.costs:
        found["usd_per_1k_images"] = 1e3 * float(view.costs["cost"][place])
    return found
