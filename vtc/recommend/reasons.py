"""Why one visual token is, or is not, the answer: what the choice rests on, in words."""

import math
from collections.abc import Sequence

import numpy as np

from vtc.cost.inference import PHASES, read_bytes
from vtc.recommend import words
from vtc.recommend.deploy import Advice, Deployment, View, limit_of, place_of_least
from vtc.recommend.units import counted, say, seconds


def reasons(q: Deployment, advice: Advice, view: View) -> list[str]:
    """What speaks for more than the fewest tokens of the first choice, and for the fewest."""
    first = view.rows[0]
    least = min(q.visual_tokens)
    m = next(i for i, llm in enumerate(q.models) if llm.model == first["model"])
    j = q.visual_tokens.index(least)
    found = [
        reason
        for reason in (
            words.tokens_gain_more(q.law),
            _bandwidth(q, view, m, j),
            _text(q),
            _encoder(q, advice, view, m, j),
            _decode(q, view, m, j),
            _largest(q, view, m),
        )
        if reason
    ]
    if first["visual_tokens"] == least:
        spent = [one for one in (_encoder(q, advice, view, m, j), _decode(q, view, m, j)) if one]
        return [_fewest(q, view, m, spent)] if least == 1 else []
    return words.not_the_answer(least, found)


def _bandwidth(q: Deployment, view: View, m: int, j: int) -> str:
    """A prefill that waits for the weights: tokens up to the ridge take no time."""
    machine, s = view.device.machine, q.service
    if machine is None or q.objective == "flops" or bool(view.timed.compute[2][m, j]):
        return ""
    shape = q.shaped[m][1]
    weight = read_bytes(shape, s.weights) / (shape.n_matmul + shape.n_head / max(1, s.batch))
    free = machine.ridge_tokens(weight) / s.batch - s.text_tokens
    visual = math.floor(free / s.images)
    if visual <= q.visual_tokens[j]:
        return ""
    reading = float(view.timed.seconds[2, m, j])
    return (
        f"at batch {s.batch} the prefill of {q.models[m].model} is bound by reading its weights, "
        f"{seconds(reading)} for any V up to about {visual}: those tokens are free"
    )


def _text(q: Deployment) -> str:
    s = q.service
    # The first token waits for the question, not for the answer.
    after = 0 if q.objective == "ttft" else max(s.generated_tokens - 1, 0)
    paid = s.text_tokens + after
    return words.text_is_paid(q.law, paid, min(q.visual_tokens), s.images)


def _encoder(q: Deployment, advice: Advice, view: View, m: int, j: int) -> str:
    """Encoder and compressor that cost more than the LLM does at the fewest tokens."""
    if q.objective == "flops":
        parts = advice.static.flops[:, m, j]
    else:
        parts = view.timed.seconds[: 3 if q.objective == "ttft" else 4, m, j]
    share = float(parts[:2].sum() / parts.sum()) if parts.sum() > 0 else 0.0
    if not share >= 0.5:
        return ""
    return (
        f"encoder and compressor take {share:.0%} of an inference of {q.models[m].model} with V = "
        f"{q.visual_tokens[j]}: fewer tokens save little"
    )


def _decode(q: Deployment, view: View, m: int, j: int) -> str:
    """Generation that takes most of the time."""
    if q.objective in ("flops", "ttft"):
        return ""
    parts = view.timed.seconds[:, m, j]
    share = float(parts[PHASES.index("decode")] / parts.sum()) if parts.sum() > 0 else 0.0
    if not share >= 0.5:
        return ""
    return (
        f"generating {counted(q.service.generated_tokens, 'token')} takes {share:.0%} of the time, "
        "whatever V"
    )


def _largest(q: Deployment, view: View, m: int) -> str:
    """No larger LLM to spend the budget on."""
    roomy = [bool(fits.any()) for fits in view.in_memory]
    larger = [i for i, count in enumerate(q.counts) if count > q.counts[m]]
    name = q.models[m].model
    if len(q.models) == 1:
        return f"{name} is the only LLM to choose from, and what it leaves buys tokens"
    if not larger:
        return f"{name} is the largest LLM to choose from, and what it leaves buys tokens"
    if not any(roomy[i] for i in larger):
        return f"{name} is the largest LLM that fits the memory, and what it leaves buys tokens"
    return ""


def _fewest(q: Deployment, view: View, m: int, spent: Sequence[str]) -> str:
    """Why one visual token is chosen; `spent` says where it saves little."""
    s, name = q.service, q.models[m].model
    but = "".join(f"; {one}" for one in spent)
    if max(q.visual_tokens) == 1:
        return f"One visual token is all there was to choose from{but}."
    falls = any(part.law.beta > 0 for part in q.law.parts)
    if not falls:
        return f"One visual token is the answer here: by the law more do not lower the error{but}."
    smaller = [i for i, count in enumerate(q.counts) if count < q.counts[m]]
    more = [at for at, v in enumerate(q.visual_tokens) if v > 1]
    # Tokens were given up for the LLM only where a smaller one could have had more of them.
    if not view.fits[np.ix_(smaller, more)].any():
        return f"One visual token is all that the budgets leave {name}{but}."
    if not s.text_tokens and s.generated_tokens <= 1:
        why = "no text is computed beside the image, so a larger LLM gains most"
    elif spent:
        why = f"no more of them leave room for {name}"
    else:
        why = "every token saved goes into a larger LLM, which lowers the error more"
    return f"One visual token is the answer here: {why}{but}."


def next_steps(q: Deployment, view: View) -> list[str]:
    """What a little more budget, or more memory, would buy."""
    first, lines = view.rows[0], []
    cost, limit = view.costs[q.objective], limit_of(q.objective, q.limits)
    others = np.ones(cost.shape, dtype=bool)
    for objective in q.limits:
        if objective != q.objective:
            others &= view.costs[objective] <= limit_of(objective, q.limits)
    better = view.errors < first["error"] - 1e-4
    near = better & others & view.in_memory & (cost > limit) & (cost <= 1.25 * limit)
    if near.any():
        m, j = place_of_least(np.where(near, cost, np.inf))
        lines.append(
            f"Just missed: {q.models[m].model} with V = {q.visual_tokens[j]}, error "
            f"{view.errors[m, j]:.3f}, at {say(q.objective, cost[m, j])} "
            f"({_missed(q, cost[m, j] / limit)})."
        )
    barred = better & view.in_budget & ~view.in_memory
    if barred.any():
        # The LLM that lacks least, at its best.
        m, _ = place_of_least(np.where(barred, view.timed.peak, np.inf))
        j = int(np.where(barred[m], view.errors[m], np.inf).argmin())
        lines.append(
            f"But for the memory: {q.models[m].model} with V = {q.visual_tokens[j]}, error "
            f"{view.errors[m, j]:.3f}, needs {view.timed.peak[m, j] / 1e9:.3g} GB."
        )
    return lines


def _missed(q: Deployment, times: float) -> str:
    """How far a cost is past its budget."""
    past, words = times - 1, "over the budget"
    if q.objective == "throughput":
        past, words = 1 - 1 / times, "too slow"
    return f"{f'{past:.0%}' if past >= 0.01 else 'less than 1%'} {words}"
