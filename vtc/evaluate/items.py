"""The items of a benchmark: its rows read, filtered, checked and turned into prompts."""

import json
from typing import Any

from vtc.data.pictures import Keep
from vtc.errors import InputError
from vtc.evaluate import metrics
from vtc.evaluate.benchmark import Benchmark, fill
from vtc.evaluate.benchmarks.rows import literal_list
from vtc.evaluate.benchmarks.spec import letter, lettered
from vtc.evaluate.item import Item
from vtc.evaluate.own_images import RowImages, refuse
from vtc.evaluate.own_rows import missing, own_rows


def read_items(
    benchmark: Benchmark,
    limit: int | None = None,
    keep: Keep = refuse,
    streaming: bool = False,
) -> list[Item]:
    """The items of a benchmark, the first `limit` of them, in the order of its rows.

    `keep` takes the pictures that rows hold themselves, and gives their paths; without it such
    rows are refused. `streaming` reads rows of the hub over the net.
    Raises InputError naming the rows' file, the row (from 0) and the column: a missing column, an
    empty question, no answers, an id used twice, an image root that is no folder, no rows left.
    """
    items: list[Item] = []
    images = RowImages(benchmark, keep)
    for number, (where, row) in own_rows(benchmark, streaming):
        items.append(_item(row, number, benchmark, images, where))
        # Rows of one group may stand far apart: then all are read.
        if limit is not None and len(items) >= limit and benchmark.columns.group is None:
            break
    if limit is not None:
        items = whole_groups(items, limit)
    if not items:
        raise InputError(f"{benchmark.source}: no row of {benchmark.rows_name} passes its filter")
    _refuse_duplicates(items, benchmark)
    if images.named and not benchmark.images.is_dir():
        raise InputError(
            f"{benchmark.source}: image root {benchmark.images} is no folder; "
            "mend 'images' in it, or give --images"
        )
    return items


def whole_groups(items: list[Item], limit: int) -> list[Item]:
    """The first items, whole groups of them: as many as `limit` holds and at least one group."""
    groups: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(item.group or f" {number}", []).append(number)
    taken: list[int] = []
    for found in groups.values():
        if taken and len(taken) + len(found) > limit:
            break
        taken += found
    return [items[number] for number in sorted(taken)]


def answers_of(cell: Any) -> list[str]:
    """The accepted answers in a cell: one, a list, a JSON list as text, or VQA's objects.

    Raises ValueError for a cell that is none of these.
    """
    if isinstance(cell, str) and cell.startswith("["):
        try:
            answers = json.loads(cell)
        except (json.JSONDecodeError, RecursionError):
            answers = None
            if cell.startswith('["'):
                raise ValueError(f"'{cell[:40]}' begins a JSON list that does not end") from None
        # A text in brackets that is no list of texts, such as [3, 4], is itself the answer.
        if answers and all(isinstance(answer, str) for answer in answers):
            return answers
    return [_answer(answer) for answer in (cell if isinstance(cell, list) else [cell])]


def _answer(cell: Any) -> str:
    found = cell.get("answer") if isinstance(cell, dict) else cell
    if found is None or isinstance(found, dict | list):
        raise ValueError(f"expected texts, or objects with an 'answer', found {str(cell)[:40]}")
    return str(found)


def _item(
    row: dict[str, Any], index: int, benchmark: Benchmark, images: RowImages, where: str
) -> Item:
    columns = benchmark.columns
    # A question of LLaVA's files may carry the mark of its image; the prompt places it itself.
    question = str(_cell(row, columns.question, where)).replace("<image>", "").strip()
    if not question:
        raise InputError(f"{where}, column '{columns.question}': the question is empty")
    choices = _choices(row, columns.choices, where)
    known = {**row, "question": question}
    if choices:
        known["choices"] = lettered(choices)
    return Item(
        item_id=str(_cell(row, columns.id, where)) if columns.id else str(index),
        images=images.of(row, where),
        question=question,
        prompt=fill(benchmark.prompt, known, where),
        references=_references(row, choices, benchmark, where),
        choices=choices,
        category=str(_cell(row, columns.category, where)) if columns.category else None,
        group=str(_cell(row, columns.group, where)) if columns.group else None,
        about={name: row[name] for name in benchmark.facts if row.get(name) is not None},
    )


def _choices(row: dict[str, Any], column: str | None, where: str) -> tuple[str, ...]:
    if column is None:
        return ()
    cell = _cell(row, column, where)
    found = literal_list(cell) if isinstance(cell, str) else cell
    if not isinstance(found, list) or len(found) < 2:
        raise InputError(f"{where}, column '{column}': expected a list of choices, found {cell!r}")
    return tuple(map(str, found))


def _references(
    row: dict[str, Any], choices: tuple[str, ...], benchmark: Benchmark, where: str
) -> list[str]:
    """The accepted answers; of a multiple choice its letter, where the row has the text."""
    try:
        found = answers_of(_cell(row, benchmark.columns.answers, where))
    except ValueError as error:
        raise InputError(f"{where}, column '{benchmark.columns.answers}': {error}") from None
    if choices:
        letters = [letter(number) for number in range(len(choices))]
        for number, answer in enumerate(found):
            if answer in choices:
                found[number] = letters[choices.index(answer)]
            elif answer not in letters:
                raise InputError(
                    f"{where}, column '{benchmark.columns.answers}': '{answer}' is none of the "
                    f"choices {', '.join(choices)}"
                )
    unfit = metrics.METRICS[benchmark.metric].unfit(benchmark.metric, found)
    if unfit:
        raise InputError(f"{where}, column '{benchmark.columns.answers}': {unfit}")
    return found


def _cell(row: dict[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise missing(column, row, where)
    if row[column] is None:
        raise InputError(f"{where}, column '{column}': empty")
    return row[column]


def _refuse_duplicates(items: list[Item], benchmark: Benchmark) -> None:
    seen: set[str] = set()
    for item in items:
        if item.item_id in seen:
            raise InputError(
                f"{benchmark.rows_name}: id '{item.item_id}' stands twice in "
                f"column '{benchmark.columns.id}'"
            )
        seen.add(item.item_id)
