"""Rows of a benchmark from the Hugging Face hub."""

import logging
from collections.abc import Iterator

from vtc.errors import InputError
from vtc.evaluate.benchmarks.local import Numbered, arrow_rows
from vtc.evaluate.benchmarks.spec import HubData


def hub_rows(benchmark: str, data: HubData, streaming: bool = False) -> Iterator[Numbered]:
    """The rows of a split, from the first of its ids that the hub gives.

    The data is downloaded and kept in the hub's cache, or with `streaming` read over the net. A
    gated data set needs a login (`hf auth login`). Raises InputError, saying how to give a local
    copy, if no id is to be had.
    """
    import pyarrow as pa
    from datasets import disable_progress_bars, load_dataset
    from datasets.exceptions import DatasetsError

    # datasets raises all of these, with many subclasses of its own.
    failures = (OSError, ValueError, RuntimeError, DatasetsError, pa.ArrowException)
    disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    reasons = []
    for name in data.ids:
        try:
            found = load_dataset(name, name=data.config, split=data.split, streaming=streaming)
        except failures as error:
            reasons.append(f"{name}: {_first_line(error)}")
            continue
        try:
            yield from arrow_rows(found, f"{name} ({data.split})")
        except failures as error:
            raise InputError(f"benchmark {benchmark}: {name}: {_first_line(error)}") from None
        return
    raise InputError(
        f"benchmark {benchmark} is not to be had from the hub ({'; '.join(reasons)}); log in with "
        f"'hf auth login' if it is gated, or give a local copy: --data-dir DIR with "
        f"DIR/{benchmark}/*.parquet (docs/benchmarks.md)"
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
