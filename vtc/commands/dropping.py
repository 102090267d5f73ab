"""The stages of an LLM that drops visual tokens, as its costs need them."""

from collections.abc import Mapping, Sequence
from typing import Any

from vtc.errors import InputError


def dropping_of(
    name: str,
    llm: Any,
    n_patches: int,
    averages: Sequence[int] | None,
    settings: Mapping[str, Any] | None = None,
) -> Any:
    """The stages of an LLM (its shape) under a compressor; None if it drops nothing there.

    Tokens are arrays over `averages`, each the most that a layer has on average; without these,
    numbers by the settings. Raises InputError for what the LLM or the settings do not allow.
    """
    from vtc.compress.choices import KNOWN
    from vtc.compress.pruning import schedule_of

    known = KNOWN.get(name)
    if known is None or known.schedule is None:
        return None
    import numpy as np

    from vtc.cost.dropping import Dropping

    if llm.n_windowed:
        raise InputError(f"{name}: an LLM with windows of attention drops no tokens; leave it out")
    own = dict(settings or {})
    wanted = [own] if averages is None else [{**own, "average": v} for v in averages]
    schedules = [schedule_of(known.schedule, llm.n_layers, n_patches, one) for one in wanted]
    starts = sorted({0, *(drop.layer for one in schedules for drop in one.drops)})
    ends = [*starts[1:], llm.n_layers]
    layers = [one.by_layer for one in schedules]
    stages = [
        (end - start, np.array([one[start] for one in layers], dtype=float))
        for start, end in zip(starts, ends, strict=True)
    ]
    if averages is None:
        stages = [(n, float(tokens[0])) for n, tokens in stages]
    return Dropping(tuple(stages), known.ranked_by_next)
