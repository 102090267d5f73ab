"""From predictions to scores: each item scored again, one row a run, benchmark and V."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vtc.errors import InputError
from vtc.evaluate import metrics

SHARED = (
    "run_id",
    "backbone",
    "family",
    "n_params",
    "n_params_total",
    "n_params_nonembedding",
    "compressor",
    "visual_tokens",
    "encoder",
    "seed",
    "benchmark",
    "task",
    "metric",
    "chance",
)
"""What the rows of a run and benchmark share; the rest of a scores row is computed."""


def score_item(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a prediction with `parsed`, `score` and `parser` of its metric, anew.

    A row with a `fault` (its image did not open) scores 0, whatever its text.
    """
    metric = metrics.get(row["metric"], f"item {row['item_id']} of {row['benchmark']}")
    found = metric.score(row["prediction"], truth_of(row))
    score = 0.0 if row.get("fault") else found.score
    return {**row, "parsed": found.parsed, "score": score, "parser": metric.parser}


def truth_of(row: Mapping[str, Any]) -> metrics.Truth:
    """What the prediction of a row is scored against; raises InputError for a broken `about`."""
    about = row.get("about")
    try:
        facts = json.loads(about) if about else {}
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise InputError(
            f"item {row['item_id']} of {row['benchmark']}: 'about' is no JSON object: {about!r:.60}"
        )
    choices = row.get("choices") or ()
    return metrics.Truth(row["references"], choices, row.get("category"), facts)


def aggregate(predictions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Scores rows from scored predictions, in the order of their first appearance.

    Raises InputError if an item stands twice in a run's benchmark, or if rows of one run disagree
    on what the run is.
    """
    groups: dict[tuple, list[Mapping[str, Any]]] = defaultdict(list)
    for row in predictions:
        groups[row["run_id"], row["benchmark"], row["visual_tokens"]].append(row)
    return [_scores_row(rows) for rows in groups.values()]


def clustered_stderr(scores: Sequence[float], clusters: Sequence[str]) -> float | None:
    """Standard error of the mean score when items of one cluster (image) depend on one another.

    sqrt(G / (G - 1) sum_g (sum_i in g (s_i - mean))^2) / n, the cluster-robust (CR1) estimate;
    with an image an item it is the usual standard error. None with a single cluster.
    """
    mean = math.fsum(scores) / len(scores)
    residuals: dict[str, float] = defaultdict(float)
    for score, cluster in zip(scores, clusters, strict=True):
        residuals[cluster] += score - mean
    n_clusters = len(residuals)
    if n_clusters < 2:
        return None
    squares = math.fsum(residual**2 for residual in residuals.values())
    return math.sqrt(n_clusters / (n_clusters - 1) * squares) / len(scores)


def _scores_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = rows[0]
    _check_group(rows)
    scores = [row["score"] for row in rows]
    mean = math.fsum(scores) / len(scores)
    return {
        **{name: first.get(name) for name in SHARED},
        "score": mean,
        "error": 1 - mean,
        "n_items": len(rows),
        "stderr": clustered_stderr(scores, [row["image_id"] for row in rows]),
        "parser": first.get("parser"),
    }


def _check_group(rows: Sequence[Mapping[str, Any]]) -> None:
    first, seen = rows[0], set()
    where = f"run {first['run_id']}, benchmark {first['benchmark']}"
    for row in rows:
        if row["item_id"] in seen:
            raise InputError(f"{where}: item '{row['item_id']}' stands twice")
        seen.add(row["item_id"])
        for name in SHARED:
            if row.get(name) != first.get(name):
                raise InputError(
                    f"{where}: column '{name}' is {first.get(name)} in one row and "
                    f"{row.get(name)} in another; give the runs different run_id"
                )
