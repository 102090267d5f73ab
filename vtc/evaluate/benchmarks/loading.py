"""From a benchmark's data, on the hub or at hand, to its items and the pictures they show."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.evaluate import metrics
from vtc.evaluate.benchmark import Benchmark
from vtc.evaluate.benchmarks import local
from vtc.evaluate.benchmarks.hub import hub_rows
from vtc.evaluate.benchmarks.local import Numbered
from vtc.evaluate.benchmarks.pictures import PictureFiles
from vtc.evaluate.benchmarks.registry import SPECS
from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import HubData, Spec
from vtc.evaluate.item import Item


@dataclass(frozen=True)
class Where:
    """Where the data is: a local folder or file, or the hub; and where pictures are and go.

    Pictures that stand in the rows are written below `pictures`; where rows name files, those are
    below `images`, or else below the folder of the data. `incomplete` takes pairs and circles of
    which rows are missing. Unless it `writes`, pictures are named but not written.
    """

    pictures: Path
    data_dir: Path | None = None
    images: Path | None = None
    streaming: bool = False
    incomplete: bool = False
    writes: bool = True


def load(spec: Spec, where: Where, limit: int | None = None) -> tuple[Benchmark, list[Item]]:
    """A benchmark and its items, in the order of its rows; `limit` takes the first of them.

    Of a benchmark scored in groups (MME's pairs, MMBench's circles) `limit` takes whole groups, as
    many as it holds and at least one.

    Raises InputError for data that is not to be had, a row with a missing or mistyped cell (naming
    column and row), an id used twice, incomplete groups, and a join without its image.
    """
    place = _place(spec, where)
    rows: Iterable[Numbered] = _rows(spec, spec.data, where, place)
    rows = _chosen(spec, rows, limit)
    keep = PictureFiles(where.pictures, where.writes)
    if spec.joined is not None:
        rows = _with_images(spec, list(rows), where, place, keep)
    items = list(items_of(spec, rows, keep))
    if not items:
        raise InputError(f"benchmark {spec.name}: no rows in {place or spec.data.ids[0]}")
    folder = place if place is None or place.is_dir() else place.parent
    named = where.images or folder or where.pictures
    benchmark = Benchmark(
        source=spec.name,
        name=spec.name,
        task=spec.task,
        metric=spec.metric,
        images=where.pictures if keep.n_kept else named,
        holds_pictures=keep.n_kept > 0,
        prompt=spec.prompt,
        max_new_tokens=spec.max_new_tokens,
        inputs=(place,) if place is not None and place.is_file() else (),
    )
    refuse_incomplete(benchmark, items, where.incomplete)
    return benchmark, items


def refuse_incomplete(benchmark: Benchmark, items: list[Item], allowed: bool) -> None:
    """Raise InputError for pairs or circles of which rows are missing, unless that is allowed."""
    lacking = metrics.METRICS[benchmark.metric].incomplete([_as_row(item) for item in items])
    if lacking and not allowed:
        raise InputError(
            f"benchmark {benchmark.name}: {lacking}; evaluate them all the same with --incomplete"
        )


def rows_of(spec: Spec, where: Where) -> Iterator[Numbered]:
    """The rows of a benchmark as they stand, without the pictures of a second table."""
    return _rows(spec, spec.data, where, _place(spec, where))


def _place(spec: Spec, where: Where) -> Path | None:
    if where.data_dir is None:
        return None
    others = [name for other in SPECS.values() for name in _names(other)]
    return local.place_of(_names(spec), where.data_dir, others)


def _names(spec: Spec) -> list[str]:
    """What a benchmark's folder may be called: its name, or that of its data set."""
    return [spec.name, *dict.fromkeys(name.split("/")[1] for name in spec.data.ids)]


def _rows(spec: Spec, data: HubData, where: Where, place: Path | None) -> Iterator[Numbered]:
    if place is None:
        return hub_rows(spec.name, data, where.streaming)
    return local.local_rows(local.config_place(place, data), data)


def _chosen(spec: Spec, rows: Iterable[Numbered], limit: int | None) -> Iterator[Numbered]:
    """The first `limit` rows, or the first whole groups that it holds (at least one)."""
    if limit is None:
        yield from rows
    elif spec.group is None:
        for number, row in enumerate(rows, start=1):
            yield row
            if number == limit:
                return
    else:
        # The copies of a question may stand far behind it: all rows are read, few are kept.
        groups: dict[str, list[tuple[int, Numbered]]] = {}
        for number, (place, cells) in enumerate(rows):
            group = spec.group(DataRow(cells, place, _no_picture))
            if group in groups or len(groups) < limit:
                groups.setdefault(group, []).append((number, (place, cells)))
        taken: list[tuple[int, Numbered]] = []
        for found in groups.values():
            if taken and len(taken) + len(found) > limit:
                break
            taken += found
        yield from (row for _, row in sorted(taken, key=lambda pair: pair[0]))


def _with_images(
    spec: Spec,
    rows: list[Numbered],
    where: Where,
    place: Path | None,
    keep: PictureFiles,
) -> Iterator[Numbered]:
    """Rows with the pictures of the second table, only those that are asked for."""
    joined, column = spec.joined, spec.image_columns[0]
    assert joined is not None
    if all(cells.get(column) is not None for _, cells in rows):
        yield from rows
        return
    wanted = {DataRow(c, p, keep).text(joined.column) for p, c in rows if c.get(column) is None}
    found: dict[str, str] = {}
    if place is None or local.has_config(place, joined.data):
        for at, cells in _rows(spec, joined.data, where, place):
            row = DataRow(cells, at, keep)
            if (key := row.text(joined.key)) in wanted and key not in found:
                [found[key]] = row.images(column)
    elif where.images is not None:
        found = {key: f"{key}.jpg" for key in wanted}
    else:
        raise InputError(
            f"benchmark {spec.name}: {place} has no '{joined.data.config}' with the images; put "
            f"that config there too, or name a folder of {{{joined.column}}}.jpg with --images"
        )
    for at, cells in rows:
        if cells.get(column) is None:
            key = DataRow(cells, at, keep).text(joined.column)
            if key not in found:
                raise InputError(
                    f"{at}: no image '{key}' ({joined.column}) in {joined.data.config}"
                )
            cells = {**cells, column: found[key]}
        yield at, cells


def items_of(spec: Spec, rows: Iterable[Numbered], keep: Callable[[bytes], str]) -> Iterator[Item]:
    """Items of rows, their ids checked; without an id of its own, an item's is its position."""
    metric = metrics.METRICS[spec.metric]
    repeats: Counter[str] = Counter()
    seen: dict[str, str] = {}
    for number, (at, cells) in enumerate(rows):
        item = spec.item(DataRow(cells, at, keep))
        name = item.item_id or str(number)
        if spec.numbered:
            repeats[name] += 1
            name = f"{name}/{repeats[name]}"
        if name in seen:
            raise InputError(f"{at}: id '{name}' stands twice; first in {seen[name]}")
        unfit = metric.unfit(spec.metric, item.references)
        if unfit:
            raise InputError(f"{at}: the accepted answers are {unfit}")
        seen[name] = at
        yield replace(item, item_id=name)


def _as_row(item: Item) -> Mapping[str, Any]:
    return {
        "item_id": item.item_id,
        "category": item.category,
        "group": item.group,
        "choices": item.choices,
    }


def _no_picture(picture: bytes) -> str:
    return ""
