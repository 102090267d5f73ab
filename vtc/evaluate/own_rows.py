"""The rows of a benchmark of one's own: from tables, a folder or the hub, filtered."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.evaluate.benchmark import Benchmark
from vtc.evaluate.benchmarks.hub import hub_rows
from vtc.evaluate.benchmarks.local import Numbered, file_rows, local_rows
from vtc.tables.read import parse_json_array, read_text


def own_rows(benchmark: Benchmark, streaming: bool = False) -> Iterator[tuple[int, Numbered]]:
    """Rows that pass the filter, each with its position among all and where it stands.

    `streaming` reads those of the hub over the net. Raises InputError for data that is not to be
    had, and a column of the filter that a row lacks.
    """
    for number, (where, row) in enumerate(_all(benchmark, streaming)):
        if _passes(row, benchmark, where):
            yield number, (where, row)


def missing(column: str, row: dict[str, Any], where: str) -> InputError:
    """What to raise for a column that a row does not have."""
    return InputError(f"{where}: no column '{column}'; it has {', '.join(map(str, row))}")


def _all(benchmark: Benchmark, streaming: bool) -> Iterator[Numbered]:
    if benchmark.data is None:
        for table in benchmark.tables:
            yield from _listed(benchmark, table) if benchmark.fields else file_rows(table)
    elif benchmark.place is not None:
        yield from local_rows(benchmark.place, benchmark.data)
    else:
        yield from hub_rows(benchmark.name, benchmark.data, streaming)


def _listed(benchmark: Benchmark, path: Path) -> Iterator[Numbered]:
    """Rows that are lists of cells, named by the benchmark's `fields`."""
    text = read_text(path)
    if not text.lstrip().startswith("["):
        raise InputError(f"{path}: 'fields' in {benchmark.source} asks for a JSON list of lists")
    for index, cells in enumerate(parse_json_array(text, str(path))):
        if not isinstance(cells, list) or len(cells) != len(benchmark.fields):
            raise InputError(
                f"{path}, row {index}: expected a list of {len(benchmark.fields)} cells "
                f"({', '.join(benchmark.fields)}), found {str(cells)[:40]}"
            )
        yield f"{path}, row {index}", dict(zip(benchmark.fields, cells, strict=True))


def _passes(row: dict[str, Any], benchmark: Benchmark, where: str) -> bool:
    for column, wanted in benchmark.filter.items():
        if column not in row:
            raise missing(column, row, where)
        choices = wanted if isinstance(wanted, list) else [wanted]
        # As text too: the cells of a CSV are all text.
        if row[column] not in choices and str(row[column]) not in map(str, choices):
            return False
    return True
