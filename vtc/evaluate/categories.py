"""Scores by category: MME's fourteen, MMMU's subjects, POPE's three kinds of absent objects."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from vtc.errors import InputError
from vtc.evaluate import metrics
from vtc.evaluate.aggregate import aggregate
from vtc.evaluate.lean import lean

CATEGORY = "category"
"""The only thing that scores are told apart by, so far."""

Row = Mapping[str, Any]


def by_category(
    scored: Iterable[Row],
    compat: bool = False,
    incomplete: bool = False,
    say: Callable[[str], object] = lambda words: None,
) -> list[dict[str, Any]]:
    """Rows of the table of categories from scored predictions: one a run, benchmark and category.

    Each category is scored by the benchmark's own metric, as if it were all there is: F1 in POPE,
    whole circles in MMBench. `say` is told of benchmarks and items without a category, which are
    left out. Raises InputError as `aggregate`, and if no item has a category.
    """
    parts: dict[str, tuple[str, str]] = {}
    lacking: dict[str, int] = {}
    parted = _parted(scored, parts, lacking)
    found = aggregate(lean(parted, compat), compat, incomplete)
    if not found:
        raise without(lacking)
    for benchmark, n_items in lacking.items():
        items = "1 item has" if n_items == 1 else f"{n_items} items have"
        say(f"{benchmark}: {items} no category and {'is' if n_items == 1 else 'are'} left out")
    return [_row(row, *parts[row["benchmark"]]) for row in found]


def without(benchmarks: Iterable[str]) -> InputError:
    """What to raise for benchmarks that have no categories."""
    return InputError(
        f"no item of {', '.join(benchmarks)} has a category; name its column in the benchmark's "
        "TOML file, or score without --by"
    )


def _parted(
    scored: Iterable[Row], parts: dict[str, tuple[str, str]], lacking: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """The rows that have a category, it and their benchmark in one name, which `parts` explains."""
    for row in scored:
        benchmark, category = row["benchmark"], row.get(CATEGORY)
        if not category:
            lacking[benchmark] = lacking.get(benchmark, 0) + 1
            continue
        name = f"{benchmark}, category {category}"
        parts[name] = (benchmark, category)
        yield {**row, "benchmark": name}


def _row(row: Row, benchmark: str, category: str) -> dict[str, Any]:
    most = metrics.METRICS[row["metric"]].points
    points = None if most is None else most * row["score"]
    kept = {name: cell for name, cell in row.items() if name != "chance"}
    return {**kept, "benchmark": benchmark, CATEGORY: category, "points": points}
