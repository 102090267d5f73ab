"""Why nothing fits, and what would: in one sentence."""

import numpy as np

from vtc.catalog import gpus
from vtc.cost.inference import stored_bytes
from vtc.cost.memory import overhead_bytes
from vtc.recommend.deploy import Advice, Deployment, View, limit_of, place_of_least
from vtc.recommend.units import NAMES, gigabytes, say


def why_nothing_fits(q: Deployment, advice: Advice, view: View) -> str:
    """The reason on one device: its memory, the encoder alone, or the cheapest choice."""
    where = f" on {view.device.gpu}" if view.device.gpu else ""
    if not view.in_memory.any():
        return _memory(q, advice, view)
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
            past, much = "below what the encoder alone takes", say(objective, alone)
            if objective == "throughput":
                past = "above what the encoder alone reaches"
            return (
                f"{_budget(objective, limit)} is {past}{where}, {much} ({q.encoder}): no number of "
                f"visual tokens helps, a smaller --encoder does; {needs}"
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


def _memory(q: Deployment, advice: Advice, view: View) -> str:
    peak, device = view.timed.peak, view.device
    m, j = place_of_least(peak)
    need, usable = float(peak[m, j]), float(device.usable_bytes or 0)
    own = next((gpu for gpu in gpus.catalog() if gpu.gpu == device.gpu), None)
    # --vram may stand for less than the GPU has, or for one that is not named.
    whole = own is not None and own.usable_bytes <= usable
    what = f"{device.gpu}'s {gigabytes(usable)}" if whole else gigabytes(usable)
    text = (
        f"no LLM fits {what} of memory: the smallest choice, {q.models[m].model} with V = "
        f"{q.visual_tokens[j]} in {q.service.weights}, needs {gigabytes(need)}"
    )
    smaller = _in_nf4(q, advice, (m, j))
    if q.service.weights != "nf4" and smaller <= usable:
        return f"{text}; with --weights nf4 it needs {gigabytes(smaller)} and fits"
    if own is not None and need <= own.usable_bytes:
        return f"{text}, which {own.gpu} has: raise --vram"
    holding = _smallest_gpu(need)
    if holding:
        return f"{text}; the smallest GPU of the catalog that holds it is {holding}"
    text += ", more than any GPU of the catalog has"
    if q.service.weights != "nf4" and (holding := _smallest_gpu(smaller)):
        return f"{text}; with --weights nf4 it needs {gigabytes(smaller)}, which {holding} holds"
    fewer = [name for name in ("batch", "images") if getattr(q.service, name) > 1]
    return f"{text}; take a smaller LLM{''.join(f', or fewer --{name}' for name in fewer)}"


def _in_nf4(q: Deployment, advice: Advice, at: tuple[int, int]) -> float:
    """Bytes that a choice takes with its LLM in nf4, as modelled."""
    shape, held = q.shaped[at[0]][1], advice.static.held
    more = stored_bytes(shape, "nf4") - stored_bytes(shape, q.service.weights)
    used = float(held.weights[at] + held.kv[at] + held.activations[at]) + more
    return used + float(overhead_bytes(used))


def _smallest_gpu(need: float) -> str | None:
    roomy = [gpu for gpu in gpus.catalog() if gpu.usable_bytes >= need]
    return min(roomy, key=lambda gpu: gpu.usable_bytes).gpu if roomy else None
