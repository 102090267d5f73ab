"""Points of a law, (N, V, error) by task, from a table's rows. Pure Python."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vtc.errors import InputError
from vtc.law.cells import CONVENTIONS, Point, family, place_of, point
from vtc.tables.compressors import compressor_name
from vtc.tables.read import read_rows, title

__all__ = ["CONVENTIONS", "GROUPINGS", "MIN_POINTS", "Point", "Points", "read_points", "read_table"]

MIN_POINTS = 4
GROUPINGS = ("benchmark", "compressor", "encoder", "family")


@dataclass(frozen=True)
class Points:
    """The points of one task, or of one group of it, and what is to be known about them.

    `by` and `group`: the column that the task was split by, and its value here.
    """

    task: str
    points: tuple[Point, ...]
    convention: str
    families: tuple[str, ...] = ()
    compressors: tuple[str, ...] = ()
    n_suspect: int = 0
    n_untrained: int = 0
    n_dropped: int = 0
    by: str | None = None
    group: str | None = None
    benchmarks: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What a message calls them."""
        group = "" if self.group is None else f", {self.by} '{self.group}'"
        return f"task '{self.task}'{group}"

    @property
    def sizes(self) -> list[int]:
        """The distinct N, ascending."""
        return sorted({point.n_params for point in self.points})

    def subset(self, points: Sequence[Point]) -> "Points":
        """The same task with other points."""
        return replace(self, points=tuple(points))

    def sha(self) -> str:
        """SHA-256 of the points, in hex: equal for equal data in any order."""
        return hashlib.sha256(json.dumps(sorted(p[:3] for p in self.points)).encode()).hexdigest()


def read_table(table: str) -> list[dict[str, Any]]:
    """Rows to read points from: a scores table, or bare rows; another table is refused by name."""
    read = read_rows(table)
    found = read.footer.get("table", "scores")
    if found not in ("scores", "rows"):
        raise InputError(
            f"{title(table)}: need a scores table or bare points, found table {found}"
            + ("; a law is for recommend --law and plot" if found == "law" else "")
        )
    if not read.rows:
        raise InputError(f"{title(table)} has no rows")
    if any(row.get("benchmark") and row.get("category") for row in read.rows):
        raise InputError(
            f"{title(table)}: rows of categories are parts of benchmarks, and no points of a law; "
            "take the scores of whole ones"
        )
    return read.rows


def read_points(
    rows: Sequence[Mapping[str, Any]],
    source: str,
    *,
    tasks: Sequence[str] = (),
    convention: str = "nominal",
    drop_suspect: bool = False,
    drop_untrained: bool = False,
    by: str | None = None,
) -> list[Points]:
    """The points of each task of a table, tasks in their order of appearance.

    With `by`, a column of GROUPINGS, the points of each group of each task, which may be few.

    A table needs visual_tokens; n_params (a count) or n_params_b (billions); error or score. A
    scores table with several benchmarks a task gives one point a run: the mean over its benchmarks.
    Without a `task` column all rows are one task, named by `tasks` or "all". Rows whose `note`
    begins with "suspect" are counted, or left out if `drop_suspect`. So are those of
    runs at V that they were not trained at (`visual_tokens_trained` is false), by `drop_untrained`.
    Rows whose visual tokens are repeated, or dropped inside the LLM, are no points of a law and
    always left out.
    Raises InputError naming the source, the row and the column.
    """
    _refuse_columns(rows, source)
    by_task: dict[str, list[tuple[int, Mapping[str, Any]]]] = defaultdict(list)
    named = any(row.get("task") is not None for row in rows)
    for index, row in enumerate(rows):
        if named and row.get("task") is None:
            place = place_of(row, source, index)
            raise InputError(f"{place}: column 'task' is empty; other rows name one")
        by_task[_task(row, tasks)].append((index, row))
    wanted = list(dict.fromkeys(tasks)) or list(by_task)
    for task in wanted:
        if task not in by_task:
            have = ", ".join(by_task)
            raise InputError(f"{source} has no rows of task '{task}'; it has {have}")
    found = []
    by_task = {
        task: [pair for pair in own if not (_is_repeated(pair[1]) or _is_pruned(pair[1]))]
        for task, own in by_task.items()
    }
    if drop_untrained:
        by_task = {
            task: [pair for pair in own if not _is_untrained(pair[1])]
            for task, own in by_task.items()
        }
    for task in wanted:
        empty = Points(task, (), convention, by=by)
        for group, own in _groups(by_task[task], by, source).items():
            found.append(_task_points(replace(empty, group=group), own, source, drop_suspect))
    return found


def _groups(
    rows: Sequence[tuple[int, Mapping[str, Any]]], by: str | None, source: str
) -> dict[str | None, list[tuple[int, Mapping[str, Any]]]]:
    """The rows of each value of the column `by`; all of them under None without it."""
    if by is None:
        return {None: list(rows)}
    groups: dict[str | None, list[tuple[int, Mapping[str, Any]]]] = defaultdict(list)
    for index, row in rows:
        named = {"family": family, "compressor": compressor_name}.get(by)
        value = named(row) if named else row.get(by)
        if value is None:
            known = " and the catalog does not know its backbone" if by == "family" else ""
            raise InputError(
                f"{place_of(row, source, index)}: column '{by}' is missing or empty{known}; "
                f"--by {by} needs it in every row"
            )
        groups[str(value)].append((index, row))
    return groups


def _refuse_columns(rows: Sequence[Mapping[str, Any]], source: str) -> None:
    """Raise InputError if a column that every law needs is in no row."""
    have = {column for row in rows for column in row}
    needs = (
        ("visual_tokens",),
        ("error", "score"),
        ("n_params", "n_params_b", "n_params_total", "n_params_nonembedding", "backbone"),
    )
    for names in needs:
        if not have.intersection(names):
            wanted = " or ".join(f"'{name}'" for name in names[:2])
            raise InputError(
                f"{source} has no column {wanted}; it has {', '.join(sorted(have)) or 'no rows'}"
            )


def _task(row: Mapping[str, Any], tasks: Sequence[str]) -> str:
    if row.get("task") is not None:
        return str(row["task"])
    return tasks[0] if tasks else "all"


def _task_points(
    empty: Points,
    rows: Sequence[tuple[int, Mapping[str, Any]]],
    source: str,
    drop_suspect: bool,
) -> Points:
    suspect = [pair for pair in rows if str(pair[1].get("note") or "").startswith("suspect")]
    if drop_suspect:
        rows = [pair for pair in rows if pair not in suspect]
    runs: dict[tuple, dict[str, Point]] = {}
    for index, row in rows:
        place = place_of(row, source, index)
        found = point(row, place, empty.convention)
        # Without a run's name every row is a run of its own.
        named = row.get("run_id") is not None and row.get("benchmark") is not None
        key = (row["run_id"] if named else index, found.visual_tokens)
        benchmark = str(row.get("benchmark"))
        if benchmark in runs.setdefault(key, {}):
            raise InputError(f"{place}: run {key[0]} has {benchmark} twice")
        runs[key][benchmark] = found
    points = _mean_over_benchmarks(runs, source)
    if len(points) < MIN_POINTS and empty.by is None:
        raise InputError(
            f"{source}: {empty.title} has {len(points)} point{'s' * (len(points) != 1)} (runs); "
            f"a law needs at least {MIN_POINTS}"
        )
    return replace(
        empty,
        points=tuple(points),
        families=_distinct(family(row) for _, row in rows),
        compressors=_distinct(compressor_name(row) for _, row in rows),
        benchmarks=_distinct(row.get("benchmark") for _, row in rows),
        n_suspect=0 if drop_suspect else len(suspect),
        n_dropped=len(suspect) if drop_suspect else 0,
        n_untrained=sum(_is_untrained(row) for _, row in rows),
    )


def _is_untrained(row: Mapping[str, Any]) -> bool:
    """Whether the row's run was not trained at its V; a CSV has words for that."""
    return str(row.get("visual_tokens_trained")).lower() in ("false", "no", "0")


def _is_repeated(row: Mapping[str, Any]) -> bool:
    """Whether the row's run was fed its visual tokens more than once; a CSV has words for that."""
    return str(row.get("visual_tokens_repeated")) not in ("None", "", "nan", "1", "1.0")


def _is_pruned(row: Mapping[str, Any]) -> bool:
    """Whether the row's LLM had fewer visual tokens in its deeper layers."""
    return str(row.get("visual_tokens_mean")) not in ("None", "", "nan")


def without_repeated(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """A sentence on the rows that no law has for a point; None without any."""
    grounds = (
        (_is_repeated, "repeated (visual_tokens_repeated), which adds FLOPs and no information"),
        (_is_pruned, "dropped inside the LLM (visual_tokens_mean), whose layers have no one V"),
    )
    said = [
        f"{count} of {len(rows)} rows are left out: their visual tokens are {why}"
        for of_kind, why in grounds
        if (count := sum(map(of_kind, rows)))
    ]
    return "; ".join(said) or None


def _mean_over_benchmarks(runs: Mapping[tuple, Mapping[str, Point]], source: str) -> list[Point]:
    """One point a run; every run must have the same benchmarks, or the means do not compare."""
    every = sorted({name for found in runs.values() for name in found})
    points = []
    named = len(every) > 1
    for key, found in runs.items():
        missing = [name for name in every if name not in found]
        if named and missing and next(iter(found.values())).run is None:
            raise InputError(
                f"{source}, row {key[0]}: a row of benchmark '{missing[0]}' is needed for the mean "
                "over benchmarks, and without a column run_id no rows are of one run; add run_id, "
                "or take --by benchmark"
            )
        if named and missing:
            raise InputError(
                f"{source}: run {key[0]} has no row of benchmark '{missing[0]}', "
                "which other runs of its task have"
            )
        first = next(iter(found.values()))
        mean = sum(own.error for own in found.values()) / len(found)
        points.append(first._replace(error=mean))
    return points


def _distinct(cells: Iterable[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(cell) for cell in cells if cell is not None))
