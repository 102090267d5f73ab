"""Reading predictions to score: our own table, the minimal one of anybody, or lmms-eval's logs."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vtc.errors import InputError
from vtc.evaluate import lmms_logs, lmms_rows, metrics
from vtc.evaluate.aggregate import SHARED
from vtc.evaluate.benchmarks import registry
from vtc.evaluate.benchmarks.registry import SPECS
from vtc.evaluate.benchmarks.spec import Spec
from vtc.evaluate.items import answers_of
from vtc.evaluate.truths import Held, as_cells, read_truths
from vtc.tables import specs
from vtc.tables.cells import checked
from vtc.tables.quantity import format_count
from vtc.tables.read import stream_rows, title
from vtc.tables.spec import Column

NEEDED = (
    *SHARED,
    "item_id",
    "image_id",
    "references",
    "choices",
    "category",
    "group",
    "about",
    "prediction",
    "fault",
)
"""The columns of a predictions table that scoring reads."""

GIVEN = ("run_id", "backbone", "family", "n_params", "visual_tokens", "compressor", "encoder")
"""Columns of a run that a caller may give for a table that lacks them."""

_COLUMNS = [column for column in specs.PREDICTIONS.columns if column.name in NEEDED]
_SHARED_COLUMNS = [column for column in _COLUMNS if column.name in SHARED]
_OWN_COLUMNS = [column for column in _COLUMNS if column.name not in SHARED]
_MOST_RUNS = 10_000
_checked_runs: dict[tuple, dict[str, Any]] = {}
_BY_NAME = {column.name: column for column in _COLUMNS}


class Source(NamedTuple):
    """What a caller says of predictions.

    `given` fills columns that the rows lack; `metric` in it wins over theirs. `data_dir` holds the
    rows of benchmarks that the predictions are held against. Items without a prediction count as
    wrong; with `incomplete` they are left out. `say` is told what is odd.
    """

    given: Mapping[str, Any]
    data_dir: str | Path | None = None
    incomplete: bool = False
    say: Callable[[str], object] = lambda words: None


def read_predictions(path: str | Path, source: Source) -> Iterator[dict[str, Any]]:
    """Rows with the columns NEEDED, as they are asked for; a Parquet file need not fit in memory.

    A row needs `prediction` and `references` (a list, a JSON list, or one text); of a benchmark
    that vtc knows `prediction` and `item_id` are enough, with `data_dir`, and metric and task are
    its own. A log of lmms-eval is known by its content. Without them run_id is the file's name (of
    a log, its folder's), backbone the LLM's size, compressor "unknown", item_id the row's position
    and image_id the item_id (so that no items share an image).

    Raises InputError naming file, row and column; a column that is nowhere names the option.
    """
    given = {key: value for key, value in source.given.items() if value is not None}
    source = source._replace(given=given)
    log = None if str(path) == "-" else lmms_logs.open_log(path)
    if log is None:
        stem = "stdin" if str(path) == "-" else Path(path).stem
        return _table_rows(path, stem, source)
    return _log_rows(log, str(path), source)


def _table_rows(path: str | Path, stem: str, source: Source) -> Iterator[dict[str, Any]]:
    name = title(path)
    read = stream_rows(path, NEEDED)
    found = read.footer.get("table", specs.PREDICTIONS.name)
    if found != specs.PREDICTIONS.name:
        raise InputError(f"{name}: need table {specs.PREDICTIONS.name}, found {found}")
    held: dict[str, Held] = {}
    index = -1
    for index, row in enumerate(read.rows):
        where = f"{name}, row {index}"
        if index == 0 and lmms_logs.is_sample(row):
            raise InputError(f"{where}: a log of lmms-eval is read from its file, not from stdin")
        cells = _named(row, source.given, where)
        if "prediction" not in cells:
            raise _lacking("prediction", row, cells, where)
        spec = SPECS.get(str(cells.get("benchmark")))
        if spec is None and source.data_dir is not None and "references" not in cells:
            spec = registry.find(str(cells.get("benchmark")))
        if spec is None or "references" in cells or source.data_dir is None:
            if spec is not None:
                cells = {"task": spec.task, "metric": spec.metric, **cells}
            yield _complete(cells, row, stem, str(index), where)
            continue
        if spec.name not in held:
            held[spec.name] = Held(read_truths(spec, source.data_dir), name)
        truth = _truth(cells, held[spec.name], spec, where)
        if truth is not None:
            whole = _complete({**cells, **truth}, row, stem, str(index), where)
            held[spec.name].note(whole)
            yield whole
    if index < 0:
        raise InputError(f"{name} has no rows")
    for own in held.values():
        yield from own.rest(source.incomplete, source.say)


def _truth(cells: Mapping[str, Any], held: Held, spec: Spec, where: str) -> dict[str, Any] | None:
    if "item_id" not in cells:
        raise InputError(
            f"{where}: column 'item_id' is missing; it joins predictions to the rows of {spec.name}"
        )
    truth = held.cells(str(cells["item_id"]))
    return truth and {**truth, "metric": cells.get("metric", spec.metric)}


def _log_rows(log: lmms_logs.Log, name: str, source: Source) -> Iterator[dict[str, Any]]:
    given = dict(source.given)
    task = given.pop("benchmark", None) or log.task
    if task is None:
        raise InputError(f"{name}: neither name nor content says which task; give --benchmark")
    spec = SPECS.get(lmms_logs.benchmark_of(task, SPECS) or "")
    held = None
    if spec is not None and source.data_dir is not None:
        held = Held(read_truths(spec, source.data_dir), name)
    n_samples = 0
    for sample in log.samples:
        n_samples += 1
        if held is not None:
            truth = held.at(sample.doc_id, sample.prompt, sample.where)
        elif spec is not None:
            item = lmms_rows.item_of(spec, sample)
            truth = {**as_cells(item, spec), "item_id": sample.doc_id}
        else:
            truth = _bare(sample, task)
        cells = {**truth, **given, "prediction": sample.prediction}
        whole = _complete(cells, cells, log.model or name, sample.doc_id, sample.where)
        if held is not None:
            held.note(whole)
        yield whole
    if held is not None:
        yield from held.rest(source.incomplete, source.say)
    elif spec is not None and n_samples < spec.n_rows:
        source.say(f"{name}: {n_samples} of the {spec.n_rows} rows of {spec.name} are in the log")


def _bare(sample: lmms_logs.Sample, task: str) -> dict[str, Any]:
    """What a log says of an item of a task that vtc does not know."""
    return {
        "benchmark": task,
        "item_id": sample.doc_id,
        "image_id": sample.image or sample.doc_id,
        "references": lmms_rows.bare_references(sample),
    }


def _named(row: Mapping[str, Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The cells of a row that scoring reads, and what is given for those it lacks."""
    cells = {key: row[key] for key in NEEDED if row.get(key) is not None}
    for key, value in given.items():
        if key != "metric" and key in cells:
            _refuse_contradiction(cells[key], value, key, where)
        cells[key] = value
    if "prediction" in row:
        cells.setdefault("prediction", "")  # An empty answer, which CSV cannot tell from none.
    return cells


def _complete(
    cells: dict[str, Any], row: Mapping[str, Any], stem: str, position: str, where: str
) -> dict[str, Any]:
    """All columns NEEDED, checked; `row` is what stood in the file."""
    cells.setdefault("run_id", stem)
    cells.setdefault("backbone", _size(cells.get("n_params")) or cells["run_id"])
    cells.setdefault("compressor", "unknown")
    cells.setdefault("item_id", position)
    cells.setdefault("image_id", str(cells["item_id"]))
    if "references" in cells:
        try:
            cells["references"] = answers_of(cells["references"])
        except ValueError as error:
            raise InputError(f"{where}, column 'references': {error}") from None
    # A run's own cells recur in all of its rows: each combination of them is checked once.
    run = tuple(map(cells.get, SHARED))
    try:
        shared = _checked_runs.get(run)
    except TypeError:  # A list or an object, which its check names.
        shared = None
    if shared is None:
        shared = _all_checked(_SHARED_COLUMNS, cells, row, where)
        for name in ("n_params", "visual_tokens"):
            if shared[name] < 1:
                raise InputError(f"{where}, column '{name}': {shared[name]:g} is below 1")
        if len(_checked_runs) >= _MOST_RUNS:
            _checked_runs.clear()
        _checked_runs[run] = shared
    whole = {**shared, **_all_checked(_OWN_COLUMNS, cells, row, where)}
    metric = metrics.get(whole["metric"], where)
    unfit = metric.unfit(whole["metric"], whole["references"])
    if unfit:
        raise InputError(f"{where}, column 'references': {unfit}")
    return whole


def _size(n_params: Any) -> str | None:
    """What an LLM without a name is called: runs of one size at several V have the same."""
    try:
        return f"{format_count(float(n_params))} LLM"
    except (TypeError, ValueError):
        return None  # The check of n_params says what is wrong.


def _all_checked(
    columns: Sequence[Column], cells: Mapping[str, Any], row: Mapping[str, Any], where: str
) -> dict[str, Any]:
    found = {}
    for column in columns:
        cell = cells.get(column.name)
        if cell is not None:
            cell = checked(cell, column, where)
        elif not column.nullable:
            raise _lacking(column.name, row, cells, where)
        found[column.name] = cell
    return found


def _lacking(
    column: str, row: Mapping[str, Any], cells: Mapping[str, Any], where: str
) -> InputError:
    """What to raise for a cell that is not there; it names the column that may be meant."""
    if column in row:
        return InputError(f"{where}: column '{column}' is empty; {_way_out(column, cells)}")
    near = difflib.get_close_matches(column, [key for key in row if key not in NEEDED], n=1)
    meant = f" (it has '{near[0]}')" if near else ""
    return InputError(f"{where}: column '{column}' is missing{meant}; {_way_out(column, cells)}")


def _refuse_contradiction(cell: Any, value: Any, key: str, where: str) -> None:
    column = _BY_NAME[key]
    if checked(cell, column, where) != checked(value, column, _flag(key)):
        raise InputError(
            f"{where}: column '{key}' says {cell}, but {_flag(key)} says {value}; "
            "leave the option out"
        )


def _flag(column: str) -> str:
    return f"--{column.replace('_', '-')}"


def _way_out(column: str, cells: Mapping[str, Any]) -> str:
    if column in (*GIVEN, "benchmark", "task", "metric"):
        return f"add it, or give {_flag(column)}"
    if column == "references" and cells.get("benchmark") in SPECS:
        return f"add it, or give a folder of the rows of {cells['benchmark']} with --data-dir"
    return "add it to the table"
