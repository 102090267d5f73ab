"""The items of a benchmark: its rows read, filtered, checked and turned into prompts."""

import json
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.evaluate import metrics
from vtc.evaluate.benchmark import Benchmark, fill, is_template
from vtc.evaluate.item import Item
from vtc.tables.read import parse_json_array, read_rows, read_text


def read_items(benchmark: Benchmark, limit: int | None = None) -> list[Item]:
    """The items of a benchmark, the first `limit` of them, in the order of its rows.

    Raises InputError naming the rows' file, the row (from 0) and the column: a missing column, an
    empty question, no answers, an id used twice, an image root that is no folder, no rows left.
    """
    rows = _rows(benchmark)
    items = []
    for index, row in enumerate(rows):
        if _passes(row, benchmark, f"{benchmark.rows}, row {index}"):
            items.append(_item(row, index, benchmark))
        if limit is not None and len(items) == limit:
            break
    if not items:
        raise InputError(f"{benchmark.source}: no row of {benchmark.rows} passes its filter")
    _refuse_duplicates(items, benchmark)
    if any(item.images for item in items) and not benchmark.images.is_dir():
        raise InputError(
            f"{benchmark.source}: image root {benchmark.images} is no folder; "
            "mend 'images' in it, or give --images"
        )
    return items


def answers_of(cell: Any) -> list[str]:
    """The accepted answers in a cell: one, a list, a JSON list as text, or VQA's objects."""
    if isinstance(cell, str) and cell.startswith("["):
        try:
            answers = json.loads(cell)
        except json.JSONDecodeError:
            answers = None
        # A text in brackets that is no list of texts, such as [3, 4], is itself the answer.
        if answers and all(isinstance(answer, str) for answer in answers):
            return answers
    answers = cell if isinstance(cell, list) else [cell]
    return [str(a["answer"] if isinstance(a, dict) and "answer" in a else a) for a in answers]


def _rows(benchmark: Benchmark) -> list[dict[str, Any]]:
    if not benchmark.fields:
        return read_rows(benchmark.rows).rows
    path = Path(benchmark.rows)
    text = read_text(path)
    if not text.lstrip().startswith("["):
        raise InputError(f"{path}: 'fields' in {benchmark.source} asks for a JSON list of lists")
    rows = []
    for index, cells in enumerate(parse_json_array(text, str(path))):
        if not isinstance(cells, list) or len(cells) != len(benchmark.fields):
            raise InputError(
                f"{path}, row {index}: expected a list of {len(benchmark.fields)} cells "
                f"({', '.join(benchmark.fields)}), found {str(cells)[:40]}"
            )
        rows.append(dict(zip(benchmark.fields, cells, strict=True)))
    return rows


def _passes(row: dict[str, Any], benchmark: Benchmark, where: str) -> bool:
    for column, wanted in benchmark.filter.items():
        if column not in row:
            raise _missing(column, row, where)
        choices = wanted if isinstance(wanted, list) else [wanted]
        # As text too: the cells of a CSV are all text.
        if row[column] not in choices and str(row[column]) not in map(str, choices):
            return False
    return True


def _item(row: dict[str, Any], index: int, benchmark: Benchmark) -> Item:
    where = f"{benchmark.rows}, row {index}"
    columns = benchmark.columns
    # A question of LLaVA's files may carry the mark of its image; the prompt places it itself.
    question = str(_cell(row, columns.question, where)).replace("<image>", "").strip()
    if not question:
        raise InputError(f"{where}, column '{columns.question}': the question is empty")
    return Item(
        item_id=str(_cell(row, columns.id, where)) if columns.id else str(index),
        images=_images(row, columns.image, where),
        question=question,
        prompt=fill(benchmark.prompt, {**row, "question": question}, where),
        references=_references(row, benchmark, where),
    )


def _images(row: dict[str, Any], column: str | None, where: str) -> tuple[str, ...]:
    if column is None:
        return ()
    if is_template(column):
        return (fill(column, row, where),)
    if column not in row:
        raise _missing(column, row, where)
    cell = row[column]
    listed = cell if isinstance(cell, list) else [cell]
    return tuple(str(image) for image in listed if image not in (None, ""))


def _references(row: dict[str, Any], benchmark: Benchmark, where: str) -> list[str]:
    found = answers_of(_cell(row, benchmark.columns.answers, where))
    needed = metrics.METRICS[benchmark.metric].min_references
    if len(found) < needed:
        raise InputError(
            f"{where}, column '{benchmark.columns.answers}': {len(found)} answers, but metric "
            f"{benchmark.metric} needs at least {needed}"
        )
    return found


def _cell(row: dict[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise _missing(column, row, where)
    if row[column] is None:
        raise InputError(f"{where}, column '{column}': empty")
    return row[column]


def _missing(column: str, row: dict[str, Any], where: str) -> InputError:
    return InputError(f"{where}: no column '{column}'; it has {', '.join(map(str, row))}")


def _refuse_duplicates(items: list[Item], benchmark: Benchmark) -> None:
    seen: set[str] = set()
    for item in items:
        if item.item_id in seen:
            raise InputError(
                f"{benchmark.rows}: id '{item.item_id}' stands twice in column "
                f"'{benchmark.columns.id}'"
            )
        seen.add(item.item_id)
