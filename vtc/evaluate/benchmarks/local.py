"""Rows of a benchmark from files at hand: Parquet, JSON, JSON lines, CSV, or a saved data set."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.evaluate.benchmarks.spec import HubData
from vtc.tables.read import read_rows

Numbered = tuple[str, dict[str, Any]]
"""A row and where it stands, for messages."""

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
_SPLITS = ("train", "test", "val", "validation", "dev", "testdev", "testmini", "challenge")
_SAVED = ("dataset_dict.json", "state.json")
_BATCH = 64  # Rows with pictures: a few MiB each.


def place_of(names: Sequence[str], data_dir: Path, others: Sequence[str]) -> Path:
    """Where in `data_dir` a benchmark's data stands: a file, or a folder.

    Sought as DIR/NAME/ and DIR/NAME.parquet (.jsonl, .json, .csv), names in any case; else DIR is
    the benchmark's own, unless it holds another (one of `others`). Raises InputError if not there.
    """
    if not data_dir.exists():
        raise InputError(f"--data-dir {data_dir} does not exist")
    if data_dir.is_file():
        return data_dir
    wanted = {name.lower() for name in names}
    entries = sorted(data_dir.iterdir())
    for entry in entries:
        named = entry.name if entry.is_dir() else entry.stem
        if named.lower() in wanted and (entry.is_dir() or entry.suffix in SUFFIXES):
            return entry
    foreign = {name.lower() for name in others} - wanted
    holds_others = any(
        (entry.name if entry.is_dir() else entry.stem).lower() in foreign for entry in entries
    )
    if holds_others or not (_is_saved(data_dir) or _data_files(data_dir)):
        raise InputError(
            f"--data-dir {data_dir} has no data of '{names[0]}'; put it at "
            f"{data_dir / names[0]}/*.parquet (docs/benchmarks.md)"
        )
    return data_dir


def local_rows(place: Path, data: HubData) -> Iterator[Numbered]:
    """The rows of a file or folder; of a folder, the files of the data set's config and split.

    Without a split (""), a folder must have one alone.
    """
    if place.is_dir() and _is_saved(place):
        yield from _saved_rows(place, data)
        return
    for file in [place] if place.is_file() else split_files(place, data):
        yield from file_rows(file)


def split_files(folder: Path, data: HubData) -> list[Path]:
    """The files of a config and split below a folder, as the hub lays them out, or all files.

    Raises InputError if there are none, or only those of other splits.
    """
    files = _data_files(folder)
    if data.config:
        files = [f for f in files if _is_of(f.relative_to(folder), data.config)] or files
    elif any(f.relative_to(folder).parts[0] == "data" for f in files):
        files = [f for f in files if f.relative_to(folder).parts[0] == "data"]
    own = [file for file in files if data.split and _begins(file, data.split)]
    if own:
        return own
    if not files:
        raise InputError(f"{folder} has no file of data ({', '.join(SUFFIXES)})")
    named = sorted({split for split in _SPLITS for file in files if _begins(file, split)})
    if not data.split and len(named) > 1:
        raise _several_splits(folder, named)
    if data.split and named:
        raise InputError(
            f"{folder} has no files of the split '{data.split}' (such as "
            f"{data.split}-00000-of-00001.parquet), but of {', '.join(named)}"
        )
    return files


def has_config(place: Path, data: HubData) -> bool:
    """Whether a place has data of this very config: files, or a saved data set in its folder."""
    if not place.is_dir() or data.config is None:
        return False
    files = [file.relative_to(place) for file in place.rglob("*") if file.is_file()]
    return any(_is_of(file, data.config) for file in files)


def config_place(place: Path, data: HubData) -> Path:
    """The folder of a config that was saved by itself, else the place."""
    own = place / (data.config or "")
    return own if data.config and own.is_dir() and _is_saved(own) else place


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _SAVED)


def _data_files(folder: Path) -> list[Path]:
    found = []
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        about = file.name in (*_SAVED, "dataset_info.json", "dataset_infos.json")
        if file.suffix in SUFFIXES and not about and not any(p.startswith(".") for p in parts):
            found.append(file)
    return found


def _is_of(file: Path, config: str) -> bool:
    return config in file.parts or file.stem == config or file.stem.startswith(f"{config}-")


def _begins(file: Path, split: str) -> bool:
    stem = file.stem
    return stem == split or any(stem.startswith(f"{split}{mark}") for mark in "-._")


def _several_splits(folder: Path, names: Sequence[str]) -> InputError:
    return InputError(f"{folder} has several splits ({', '.join(names)}); name one with 'split'")


def file_rows(file: Path) -> Iterator[Numbered]:
    """The rows of a file; those of a Parquet file need not fit in memory."""
    if file.suffix == ".parquet" and file.is_file():
        rows = _parquet_rows(file)
    else:
        rows = iter(read_rows(file).rows)
    for index, row in enumerate(rows):
        yield f"{file}, row {index}", row


def _parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(file).iter_batches(_BATCH):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        first = (str(error).splitlines() or ["unreadable"])[0]
        raise InputError(f"{file} is a damaged or truncated Parquet file: {first}") from None


def _saved_rows(folder: Path, data: HubData) -> Iterator[Numbered]:
    import pyarrow as pa
    from datasets import load_from_disk

    try:
        found: Any = load_from_disk(str(folder))
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        first = (str(error).splitlines() or ["unreadable"])[0]
        raise InputError(f"{folder}: {first}") from None
    if isinstance(found, dict):
        if not data.split and len(found) > 1:
            raise _several_splits(folder, [str(split) for split in found])
        if data.split and data.split not in found:
            have = ", ".join(map(str, found))
            raise InputError(f"{folder} has no split '{data.split}'; it has {have}")
        found = found[data.split] if data.split else next(iter(found.values()))
    yield from arrow_rows(found, str(folder))


def arrow_rows(dataset: Any, name: str) -> Iterator[Numbered]:
    """The rows of a data set of the library datasets, pictures not decoded."""
    tables = dataset.with_format("arrow").iter(_BATCH)
    index = 0
    for table in tables:
        for row in table.to_pylist():
            yield f"{name}, row {index}", row
            index += 1
