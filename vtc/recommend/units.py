"""Costs as a person reads them."""

from collections.abc import Mapping
from typing import Any

from vtc.tables.quantity import format_flops

NAMES = {
    "flops": "FLOPs",
    "ttft": "time to the first token",
    "latency": "latency",
    "throughput": "throughput",
    "cost": "cost",
}


def say(objective: str, cost: float) -> str:
    """A cost as `deploy` keeps it: FLOP, seconds, seconds an image or USD an image."""
    if objective == "flops":
        return format_flops(cost)
    if objective == "throughput":
        return f"{short(1 / cost):,g} images a second"
    if objective == "cost":
        return f"{_usd(cost)} for 1000 images"
    return seconds(cost)


def say_of(objective: str, cost: float, limit: float) -> str:
    """A cost beside its budget: 29.4 ms of 30 ms."""
    if objective == "throughput":
        return f"{say(objective, cost)} where {say(objective, limit)} are asked"
    if objective == "cost":
        return f"{_usd(cost)} of {say(objective, limit)}"
    return f"{say(objective, cost)} of {say(objective, limit)}"


def _usd(an_image: float) -> str:
    return f"${short(1e3 * an_image):g}"


def seconds(value: float) -> str:
    """A time: 3.7 ms, 1.2 s."""
    return f"{short(value):g} s" if value >= 1 else f"{short(1e3 * value):g} ms"


def short(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")


def gigabytes(amount: float) -> str:
    """An amount of memory in GB (powers of ten)."""
    return f"{amount / 1e9:.3g} GB"


def counted(count: float, noun: str) -> str:
    """A number with its noun: 1 image, 3 images."""
    return f"{count:g} {noun}{'s' * (count != 1)}"


def setting(row: Mapping[str, Any]) -> str:
    """What one inference of a row is."""
    cached = f"{counted(row['cached_tokens'], 'cached token')} before and " * bool(
        row["cached_tokens"]
    )
    return (
        f"An inference is {counted(row['images'], 'image')}, {cached}"
        f"{counted(row['text_tokens'], 'text token')} behind and "
        f"{counted(row['generated_tokens'], 'token')} generated; batch {row['batch']}; weights "
        f"{row['weights']}, cache {row['kv']}; {row['encoder'] or 'no encoder'}, "
        f"{row['compressor'] or 'no compressor'}."
    )
