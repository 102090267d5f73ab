"""Scores that cannot be compared: of one benchmark, but over different numbers of items."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def uneven(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each benchmark whose scores rows have different `n_items`."""
    counts: dict[str, Counter[int]] = {}
    example: dict[tuple[str, int], str] = {}
    for row in rows:
        benchmark, found = row.get("benchmark"), str(row.get("n_items"))
        # Bare tables of points may have anything there.
        if benchmark and found.isdigit():
            name, n_items = str(benchmark), int(found)
            counts.setdefault(name, Counter())[n_items] += 1
            example.setdefault((name, n_items), str(row.get("run_id", "a run")))
    for name, sizes in counts.items():
        if len(sizes) < 2:
            continue
        few = min(sizes)
        yield (
            f"{name}: run {example[name, few]} has {few} items, others up to {max(sizes)}; scores "
            "over different items are not to be compared"
        )
