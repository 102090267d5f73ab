"""The benchmarks that a user names: of the field by name, one's own as a TOML file."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vtc.evaluate.benchmark import Benchmark, distinct, read_benchmark
from vtc.evaluate.benchmarks.loading import Where, load, refuse_incomplete
from vtc.evaluate.benchmarks.pictures import PictureFiles
from vtc.evaluate.benchmarks.registry import SPECS, find
from vtc.evaluate.item import Item
from vtc.evaluate.items import read_items

Chosen = tuple[Benchmark, list[Item]]


@contextmanager
def picture_folder(named: str | None) -> Iterator[Path]:
    """The folder that takes the pictures of rows: the one named, else one that goes afterwards."""
    if named is not None:
        Path(named).mkdir(parents=True, exist_ok=True)
        yield Path(named).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="vtc-pictures-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def choose(
    names: Sequence[str],
    where: Where,
    limit: int | None = None,
    max_new_tokens: int | None = None,
) -> list[Chosen]:
    """The benchmarks of names and TOML files with their items, in the order named.

    `max_new_tokens` replaces the benchmarks' own. Raises InputError for a name that is none (with
    the nearest ones), two benchmarks of one name, and as `load` and `read_items` do.
    """
    own = [is_file(name) for name in names]
    for name, file in zip(names, own, strict=True):
        if not file:
            find(name)
    chosen = []
    for name, file in zip(names, own, strict=True):
        if file:
            benchmark = read_benchmark(name, where.images, where.data_dir)
            keep = PictureFiles(where.pictures, where.writes)
            items = read_items(benchmark, limit, keep, where.streaming)
            if keep.n_kept:
                benchmark = replace(benchmark, images=where.pictures, holds_pictures=True)
            refuse_incomplete(benchmark, items, where.incomplete)
            chosen.append((benchmark, items))
        else:
            chosen.append(load(find(name), where, limit))
        distinct([benchmark for benchmark, _ in chosen])
    if max_new_tokens is None:
        return chosen
    return [(replace(one, max_new_tokens=max_new_tokens), items) for one, items in chosen]


def is_file(name: str) -> bool:
    """Whether a benchmark is named by its file, and not by the name of one of the field."""
    return name.lower() not in SPECS and (name.endswith(".toml") or Path(name).exists())


def partial(chosen: Sequence[Chosen]) -> list[str]:
    """A sentence for each benchmark of the field of which not all rows are here."""
    return [
        f"{benchmark.name}: {len(items)} items; its split has {SPECS[benchmark.name].n_rows}"
        for benchmark, items in chosen
        if benchmark.source == benchmark.name and len(items) != SPECS[benchmark.name].n_rows
    ]
