"""Why nothing fits, and what would: in one sentence."""

import numpy as np

from vtc.catalog import gpus
from vtc.cost.inference import memory
from vtc.recommend.deploy import Advice, Deployment, View, limit_of, place_of_least
from vtc.recommend.units import NAMES, gigabytes, say


def why_nothing_fits(q: Deployment, advice: Advice, view: View) -> str:
    """The reason on one device: its memory, the encoder alone, or the cheapest choice."""
    where = f" on {view.device.gpu}" if view.device.gpu else ""
    if not view.in_memory.any():
        return _memory(q, view)
    for objective in q.limits:
        cost, limit = view.costs[objective], limit_of(objective, q.limits)
        known = np.isfinite(cost) & view.in_memory
        if not known.any():
            return (
                f"no {NAMES[objective]} is known of any of these choices{where}: --costs measured "
                "none of them whole; name its LLMs with --llm, and its --encoder and --compressor"
            )
        if (cost[known] <= limit).any():
            continue
        m, j = at = place_of_least(np.where(known, cost, np.inf))
        needs = (
            f"the cheapest choice, {q.models[m].model} with V = {q.visual_tokens[j]}, "
            f"{'reaches' if objective == 'throughput' else 'needs'} {say(objective, cost[at])}"
        )
        alone = _encoder_alone(q, advice, view, objective, at)
        if alone > limit:
            return (
                f"{_budget(objective, limit)} is below what the encoder alone takes{where}, "
                f"{say(objective, alone)} ({q.encoder}): no number of visual tokens helps, a "
                f"smaller --encoder does; {needs}"
            )
        return f"nothing fits {_budget(objective, limit)}{where}: {needs}"
    limits = " and ".join(_budget(name, limit_of(name, q.limits)) for name in q.limits)
    return f"no choice{where} holds {limits} and the memory together"


def _budget(objective: str, limit: float) -> str:
    return (
        say(objective, limit)
        if objective == "flops"
        else (f"a {NAMES[objective]} of {say(objective, limit)}")
    )


def _encoder_alone(
    q: Deployment, advice: Advice, view: View, objective: str, at: tuple[int, int]
) -> float:
    """What the encoder takes of an objective, in its unit."""
    if objective == "flops":
        return float(advice.static.flops[(0, *at)])
    taken = float(view.timed.seconds[(0, *at)])
    if objective in ("ttft", "latency"):
        return taken
    an_image = taken / (q.service.batch * q.service.images)
    hourly = view.device.usd_per_hour or 0.0
    return an_image if objective == "throughput" else an_image * hourly / 3600


def _memory(q: Deployment, view: View) -> str:
    peak = view.timed.peak
    m, j = place_of_least(peak)
    need, usable = float(peak[m, j]), float(view.device.usable_bytes or 0)
    what = f"{view.device.gpu}'s {gigabytes(usable)}" if view.device.gpu else gigabytes(usable)
    text = (
        f"no LLM fits {what} of memory: the smallest choice, {q.models[m].model} with V = "
        f"{q.visual_tokens[j]} in {q.service.weights}, needs {gigabytes(need)}"
    )
    shape, service = q.shaped[m][1], type(q.service)(**{**vars(q.service), "weights": "nf4"})
    compressing = q.compressor_of(shape.hidden_size, (q.visual_tokens[j],))
    v = np.array([float(q.visual_tokens[j])])
    smaller = float(memory(shape, q.encoder_shape, compressing, v, service).peak[0])
    if q.service.weights != "nf4" and smaller <= usable:
        return f"{text}; with --weights nf4 it needs {gigabytes(smaller)} and fits"
    roomy = [gpu for gpu in gpus.catalog() if gpu.usable_bytes >= need]
    if not roomy:
        return f"{text}, more than any GPU of the catalog has; take a smaller LLM or --batch"
    least = min(roomy, key=lambda gpu: gpu.usable_bytes)
    return f"{text}; the smallest GPU of the catalog that holds it is {least.gpu}"
