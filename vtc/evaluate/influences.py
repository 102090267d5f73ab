"""Predictions as scores, and what each image moves every score by: what an item bootstrap needs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from vtc.evaluate.aggregate import score_item, summed
from vtc.evaluate.lean import lean
from vtc.evaluate.predictions import Source, read_predictions

# Answers kept with their score: several runs give the same answer to the same item.
_REMEMBERED = 200_000
_SCORED_BY = ("metric", "prediction", "category", "about", "fault")


class Influences(NamedTuple):
    """Scores rows, and by (run_id, visual_tokens, benchmark) what each image moves the score by.

    An image's influence is the sum of those of its items (`Total`): given a weight w instead of 1,
    it moves the score by (w - 1) times that, to first order.
    """

    rows: list[dict[str, Any]]
    images: dict[tuple[str, int, str], dict[str, float]]


def read_influences(*tables: str) -> Influences:
    """Score the predictions of tables from their text, as `vtc score` does, by image.

    Raises InputError as `read_predictions` and `aggregate`.
    """
    rows, images = [], {}
    answers = (row for table in tables for row in read_predictions(table, Source({})))
    scored = lean(_scored(answers), compat=False)
    for row, moved in summed(scored):
        rows.append(row)
        if not row["visual_tokens_repeated"]:  # Those are no points of a law.
            images[row["run_id"], row["visual_tokens"], row["benchmark"]] = moved
    return Influences(rows, images)


def _scored(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows with their scores; equal answers to equal items are scored once."""
    known: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        texts = (tuple(row["references"]), tuple(row.get("choices") or ()))
        key = (*(row.get(name) for name in _SCORED_BY), *texts)
        found = known.get(key)
        if found is None:
            whole = score_item(row)
            found = {name: whole[name] for name in ("parsed", "score", "parser")}
            if len(known) >= _REMEMBERED:
                known.clear()
            known[key] = found
        yield {**row, **found}
