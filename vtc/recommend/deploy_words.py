"""The answer under real costs in plain sentences."""

from collections.abc import Sequence

from vtc.catalog import gpus
from vtc.recommend import words
from vtc.recommend.deploy import Advice, Deployment, View, limit_of
from vtc.recommend.grid import Device
from vtc.recommend.reasons import next_steps, reasons
from vtc.recommend.units import counted, gigabytes, say, say_of, seconds, setting


def explain(q: Deployment, advice: Advice) -> list[str]:
    """The answer on each device and its grounds."""
    rows = advice.rows
    lines = [*words.law_sentences(q.law), setting(rows[0]), *_dropped(q)]
    if len(q.devices) == 1:
        view = advice.views[0]
        lines += [_choice(q, view), *_split(q, advice, view)]
        lines += [*reasons(q, advice, view), *next_steps(q, view)]
    else:
        limits = " and ".join(say(name, limit_of(name, q.limits)) for name in q.limits)
        lines.append(f"The lowest errors on each GPU within {limits}, by rank.")
    return [
        *lines,
        *words.extrapolations(q.law, rows),
        *words.doubts(q.law, q.models),
        *_model_of_time(q, advice),
    ]


def _dropped(q: Deployment) -> list[str]:
    """What V counts where the LLM drops visual tokens between its layers."""
    dropping = q.compressor_of(q.shaped[0][1], q.visual_tokens).dropping
    if dropping is None:
        return []
    return [
        f"V is what a layer has of an image's visual tokens, on average: all "
        f"{float(dropping.entering[0]):.0f} enter the LLM, between whose layers {q.compressor} "
        "drops some. The law was fitted to tokens that enter."
    ]


def _choice(q: Deployment, view: View) -> str:
    first, device = view.rows[0], view.device
    cost = first["budget_share"] * limit_of(q.objective, q.limits)
    where = f" on {device.gpu}" if device.gpu else ""
    limit = limit_of(q.objective, q.limits)
    held = ""
    if device.usable_bytes is not None:
        held = f", {gigabytes(first['memory_peak'])} of {_memory(device)}"
    return (
        f"Deploy {first['model']} with {words.tokens(first['visual_tokens'])}{where}: "
        f"{words.error_with_interval(first)}; {say_of(q.objective, cost, limit)}{held}; "
        f"{words.best_of(int(view.fits.sum()), first)}."
    )


def _memory(device: Device) -> str:
    """What may be filled, and which part that is of what the GPU's label says."""
    usable = device.usable_bytes or 0
    text = f"{gigabytes(usable)} of memory"
    own = next((gpu for gpu in gpus.catalog() if gpu.gpu == device.gpu), None)
    if own is None or own.usable_bytes != usable:
        return text
    return f"{text} ({usable / (own.memory_gb * 2**30):.0%} of {own.memory_gb:g} GiB)"


def _split(q: Deployment, advice: Advice, view: View) -> list[str]:
    """What the first choice spends where."""
    first = view.rows[0]
    named = (("encoder", "encoder"), ("compressor", "compressor"), ("prefill", "prefill"),
             ("decode", "decoding"))  # fmt: skip
    shares = [
        f"{name} {first[f'flops_{phase}'] / first['flops']:.0%}"
        for phase, name in named
        if first[f"flops_{phase}"]
    ]
    lines = [f"Of its {say('flops', first['flops'])}: {', '.join(shares)}."]
    if first.get("latency_ms") is not None:
        times = [
            f"{name} {seconds(first[f'{phase}_ms'] / 1e3)}"
            for phase, name in named
            if first[f"{phase}_ms"]
        ]
        phase, _, what = first["bound"].partition(": ")
        most = f"{dict(named)[phase]}{', measured' if what == 'measured' else f', bound by {what}'}"
        until = "latency"
        after = ""
        if q.objective == "ttft":
            until = "ttft"
            after = f", then {times.pop()}" if first["decode_ms"] else ""
        lines.append(
            f"Of its {seconds(first[f'{until}_ms'] / 1e3)}: {', '.join(times)} (most of it {most})"
            f"{after}; {first['images_per_s']:.3g} images a second."
        )
    return lines


def _types(types: Sequence[str], weights: str) -> str:
    """In which types it was measured, if in others than are asked."""
    others = [name for name in types if name != weights]
    return f", measured in {' and '.join(others)}, not quantised either" if others else ""


def _model_of_time(q: Deployment, advice: Advice) -> list[str]:
    """Where the times are from."""
    lines = []
    rows = advice.rows
    if q.measured is not None:
        known = sum(row["measured"] for row in rows)
        lines.append(
            f"{known} of {len(rows)} rows shown have measured costs ({q.measured.name}, "
            f"{counted(q.measured.n_rows, 'row')} of it fit{'s' * (q.measured.n_rows == 1)} the "
            f"question{_types(q.measured.types, q.service.weights)})."
        )
    machines = [view.device for view in advice.views if view.device.machine is not None]
    if machines and not all(row["measured"] for row in rows):
        which = "Times" if q.measured is None else "Times that are not measured"
        lines.append(
            f"{which} are a roofline model: the GPU's peaks times an efficiency of compute and one "
            "of bandwidth (docs/recommend.md)."
        )
    return lines
