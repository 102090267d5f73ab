"""Points of a law, (N, V, error) by task, from a table's rows. Pure Python."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from vtc.catalog import llms
from vtc.errors import InputError
from vtc.tables.compressors import compressor_name
from vtc.tables.read import number, read_rows, title

MIN_POINTS = 4
CONVENTIONS = {
    "nominal": "n_params",
    "total": "n_params_total",
    "non-embedding": "n_params_nonembedding",
}
ROUNDING = 0.006  # of an error and a score of two digits each


class Point(NamedTuple):
    """One run: N (parameters), V (visual tokens) and its error, a share in [0, 1]."""

    n_params: int
    visual_tokens: int
    error: float


@dataclass(frozen=True)
class Points:
    """The points of one task, and what is to be known about them."""

    task: str
    points: tuple[Point, ...]
    convention: str
    families: tuple[str, ...] = ()
    compressors: tuple[str, ...] = ()
    n_suspect: int = 0
    n_dropped: int = 0

    @property
    def sizes(self) -> list[int]:
        """The distinct N, ascending."""
        return sorted({point.n_params for point in self.points})

    def subset(self, points: Sequence[Point]) -> "Points":
        """The same task with other points."""
        return replace(self, points=tuple(points))

    def sha(self) -> str:
        """SHA-256 of the points, in hex: equal for equal data in any order."""
        return hashlib.sha256(json.dumps(sorted(self.points)).encode()).hexdigest()


def read_table(table: str) -> list[dict[str, Any]]:
    """Rows to read points from: a scores table, or bare rows; another table is refused by name."""
    read = read_rows(table)
    found = read.footer.get("table", "scores")
    if found not in ("scores", "rows"):
        raise InputError(f"{title(table)}: need a scores table or bare points, found table {found}")
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
) -> list[Points]:
    """The points of each task of a table, tasks in their order of appearance.

    A table needs visual_tokens; n_params (a count) or n_params_b (billions); error or score. A
    scores table with several benchmarks a task gives one point a run: the mean over its benchmarks.
    Without a `task` column all rows are one task, named by `tasks` or "all". Rows whose `note`
    begins with "suspect" are counted, or left out if `drop_suspect`.
    Raises InputError naming the source, the row and the column.
    """
    _refuse_columns(rows, source)
    by_task: dict[str, list[tuple[int, Mapping[str, Any]]]] = defaultdict(list)
    named = any(row.get("task") is not None for row in rows)
    for index, row in enumerate(rows):
        if named and row.get("task") is None:
            raise InputError(f"{source}, row {index}: column 'task' is empty; other rows name one")
        by_task[_task(row, tasks)].append((index, row))
    wanted = list(dict.fromkeys(tasks)) or list(by_task)
    for task in wanted:
        if task not in by_task:
            have = ", ".join(by_task)
            raise InputError(f"{source} has no rows of task '{task}'; it has {have}")
    return [_task_points(task, by_task[task], source, convention, drop_suspect) for task in wanted]


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
    task: str,
    rows: Sequence[tuple[int, Mapping[str, Any]]],
    source: str,
    convention: str,
    drop_suspect: bool,
) -> Points:
    suspect = [pair for pair in rows if str(pair[1].get("note") or "").startswith("suspect")]
    if drop_suspect:
        rows = [pair for pair in rows if pair not in suspect]
    runs: dict[tuple, dict[str, Point]] = {}
    for index, row in rows:
        point = _point(row, f"{source}, row {index}", convention)
        # Without a run's name every row is a run of its own.
        named = row.get("run_id") is not None and row.get("benchmark") is not None
        key = (row["run_id"] if named else index, point.visual_tokens)
        benchmark = str(row.get("benchmark"))
        if benchmark in runs.setdefault(key, {}):
            raise InputError(f"{source}, row {index}: run {key[0]} has {benchmark} twice")
        runs[key][benchmark] = point
    points = _mean_over_benchmarks(runs, source)
    if len(points) < MIN_POINTS:
        raise InputError(
            f"{source}: task '{task}' has {len(points)} point{'s' * (len(points) != 1)} (runs); "
            f"a law needs at least {MIN_POINTS}"
        )
    return Points(
        task,
        tuple(points),
        convention,
        _distinct(_family(row) for _, row in rows),
        _distinct(compressor_name(row) for _, row in rows),
        0 if drop_suspect else len(suspect),
        len(suspect) if drop_suspect else 0,
    )


def _mean_over_benchmarks(runs: Mapping[tuple, Mapping[str, Point]], source: str) -> list[Point]:
    """One point a run; every run must have the same benchmarks, or the means do not compare."""
    every = sorted({name for found in runs.values() for name in found})
    points = []
    named = len(every) > 1
    for key, found in runs.items():
        missing = [name for name in every if name not in found]
        if named and missing:
            raise InputError(
                f"{source}: run {key[0]} has no row of benchmark '{missing[0]}', "
                "which other runs of its task have"
            )
        first = next(iter(found.values()))
        mean = sum(point.error for point in found.values()) / len(found)
        points.append(Point(first.n_params, first.visual_tokens, mean))
    return points


def _distinct(cells: Iterable[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(cell) for cell in cells if cell is not None))


def _family(row: Mapping[str, Any]) -> str | None:
    """The row's family, else that of its backbone in the catalog."""
    if row.get("family") is not None:
        return row["family"]
    llm = llms.find(str(row.get("backbone") or ""))
    return llm.family if llm else None


def _point(row: Mapping[str, Any], where: str, convention: str) -> Point:
    tokens = _cell(row, "visual_tokens", where)
    if tokens < 1 or tokens != int(tokens):
        raise InputError(f"{where}: visual_tokens {tokens:g} is not a whole number of at least 1")
    return Point(_n_params(row, where, convention), int(tokens), _error(row, where))


def _error(row: Mapping[str, Any], where: str) -> float:
    shares = {
        name: _share(row, name, where) for name in ("error", "score") if row.get(name) is not None
    }
    if not shares:
        raise InputError(f"{where}: needs a column 'error' or 'score' with a number")
    if len(shares) == 2 and abs(shares["error"] + shares["score"] - 1) > ROUNDING:
        raise InputError(
            f"{where}: error {shares['error']:g} and score {shares['score']:g} do not add up to 1"
        )
    return shares["error"] if "error" in shares else 1 - shares["score"]


def _share(row: Mapping[str, Any], name: str, where: str) -> float:
    value = _cell(row, name, where)
    if not -1e-9 <= value <= 1 + 1e-9:
        percent = "; divide percentages by 100" if 1 < value <= 100 else ""
        raise InputError(f"{where}: {name} is {value:g}; it is a share between 0 and 1{percent}")
    return min(max(value, 0.0), 1.0)


def _n_params(row: Mapping[str, Any], where: str, convention: str) -> int:
    column = CONVENTIONS[convention]
    names = (column, "n_params_b") if convention == "nominal" else (column,)
    given = [name for name in names if row.get(name) is not None]
    counts = [llms.checked_count(_cell(row, name, where), name, where) for name in given]
    if not counts:
        return _from_catalog(row, column, where)
    if max(counts) > 1.01 * min(counts):
        raise InputError(f"{where}: n_params and n_params_b disagree; keep one of them")
    return counts[0]


def _from_catalog(row: Mapping[str, Any], column: str, where: str) -> int:
    llm = llms.find(str(row.get("backbone") or ""))
    if llm is None:
        names = "'n_params' or 'n_params_b'" if column == "n_params" else f"'{column}'"
        raise InputError(
            f"{where}: needs a column {names} with a number, "
            "or a 'backbone' that the catalog of LLMs knows"
        )
    return getattr(llm, column)


def _cell(row: Mapping[str, Any], column: str, where: str) -> float:
    if row.get(column) is None:
        raise InputError(f"{where}: column '{column}' is missing or empty")
    return number(row[column], f"{where}, column '{column}'")
