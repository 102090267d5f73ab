"""Rows of Hugging Face datasets: a hub id, a folder of save_to_disk, a folder of data files."""

import logging
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from vtc.errors import InputError

_BATCH = 256
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.\[\]%:+-]+)?")
_FILES = (".json", ".jsonl", ".gz", ".parquet", ".csv", ".txt", ".toml")


def is_hub_id(source: str) -> bool:
    """Whether a source reads as `org/name` or `org/name:split`, and not as the path of a file."""
    return bool(_HUB_ID.fullmatch(source)) and not source.endswith(_FILES)


def open_dataset(
    source: str, split: str | None = None, subset: str | None = None, streaming: bool = False
) -> tuple[Callable[[], Iterator[dict[str, Any]]], int | None]:
    """What gives the rows of a dataset, and their number if it is known.

    `source` is a folder or `org/name[:split]`. Rows hold pictures as {bytes, path}, not decoded. A
    local folder of data files is read as it stands; a dataset of the hub is downloaded and kept in
    the hub's cache, or with `streaming` read over the net as its rows are asked for.

    Raises InputError for a dataset that is not to be had, or a split or subset it does not have.
    """
    import pyarrow as pa
    from datasets import IterableDataset, disable_progress_bars, load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError

    # datasets raises all of these, with many subclasses of its own.
    failures = (OSError, ValueError, RuntimeError, DatasetsError, pa.ArrowException)
    disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    folder = Path(source)
    try:
        if folder.is_dir() and any((folder / n).is_file() for n in _SAVED):
            found: Any = load_from_disk(str(folder))
        elif folder.is_dir():
            _check_data_files(folder)
            found = load_dataset(str(folder), name=subset, streaming=True)
        else:
            name, _, named = source.partition(":")
            split = named or split
            found = load_dataset(name, name=subset, streaming=streaming)
        found = _one_split(found, split, source)
    except failures as error:
        raise _failure(source, error) from None
    length = None if isinstance(found, IterableDataset) else len(found)

    def rows() -> Iterator[dict[str, Any]]:
        try:
            tables: Any = found.with_format("arrow").iter(_BATCH)
            for table in tables:
                yield from table.to_pylist()
        except failures as error:
            raise _failure(source, error) from None

    return rows, length


def _failure(source: str, error: Exception) -> InputError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"dataset {source}: {first}")


def _check_data_files(folder: Path) -> None:
    files = islice(folder.rglob("*"), 100_000)
    if not any(file.suffix in _DATA for file in files):
        raise InputError(
            f"folder {folder} holds no dataset: neither one that datasets saved nor files of data "
            f"({', '.join(_DATA)})"
        )


_DATA = (".parquet", ".json", ".jsonl", ".csv", ".arrow", ".gz", ".zst", ".tar", ".zip")
_SAVED = ("dataset_dict.json", "state.json")


def _one_split(found: Any, split: str | None, source: str) -> Any:
    if not isinstance(found, dict):
        if split is not None:
            raise InputError(f"dataset {source} has no splits; leave --split out")
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    chosen = split or "train"
    if chosen not in found:
        names = ", ".join(found)
        asked = f"no split '{chosen}'" if split else "several splits; name one with --split"
        raise InputError(f"dataset {source}: {asked}; it has {names}")
    return found[chosen]
