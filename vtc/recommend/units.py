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
        return f"{float(f'{1 / cost:.3g}'):,g} images a second"
    if objective == "cost":
        return f"${1e3 * cost:.3g} for 1000 images"
    return seconds(cost)


def seconds(value: float) -> str:
    """A time: 3.7 ms, 1.2 s."""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


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
