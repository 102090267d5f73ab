"""From predictions to scores: each item scored again, one row a run, benchmark and V."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    "compressor_settings",
    "visual_tokens",
    "visual_tokens_repeated",
    "visual_tokens_mean",
    "visual_tokens_kept",
    "visual_tokens_trained",
    "encoder",
    "seed",
    "benchmark",
    "task",
    "metric",
    "chance",
)
"""What the rows of a run and benchmark share; the rest of a scores row is computed."""


def score_item(row: Mapping[str, Any], compat: bool = False) -> dict[str, Any]:
    """The row of a prediction with `parsed`, `score` and `parser` of its metric, anew.

    White space around a prediction is no part of it. A row with a `fault` (its image did not open)
    scores 0, whatever its text. `compat`: as lmms-eval scores, also where it is wrong.
    """
    metric = metrics.get(row["metric"], f"item {row['item_id']} of {row['benchmark']}")
    found = metric.scorer(compat)(row["prediction"].strip(), truth_of(row))
    score = 0.0 if row.get("fault") else found.score
    return {**row, "parsed": found.parsed, "score": score, "parser": metric.parser_name(compat)}


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


def aggregate(
    predictions: Iterable[Mapping[str, Any]], compat: bool = False, incomplete: bool = False
) -> list[dict[str, Any]]:
    """Scores rows from scored predictions, in the order of their first appearance.

    The score is the mean over the items, or what the benchmark makes of them (MME's points, POPE's
    F1, MMBench's circles); its standard error is clustered by image, by the delta method.
    `incomplete` lets pairs and circles pass of which rows are missing.
    Raises InputError if an item stands twice in a run's benchmark, if rows of one run disagree on
    what the run is, and for incomplete pairs or circles.
    """
    return [row for row, _ in summed(predictions, compat, incomplete)]


def summed(
    predictions: Iterable[Mapping[str, Any]], compat: bool = False, incomplete: bool = False
) -> Iterator[tuple[dict[str, Any], dict[str, float]]]:
    """Each scores row of `aggregate`, with what each image moves its score by (`Total`, summed)."""
    groups: dict[tuple, list[Mapping[str, Any]]] = defaultdict(list)
    for row in predictions:
        fed = row["visual_tokens"], row.get("visual_tokens_repeated")
        groups[row["run_id"], row["benchmark"], *fed].append(row)
    for rows in groups.values():
        yield _scores_row(rows, compat, incomplete)


def clustered_stderr(scores: Sequence[float], clusters: Sequence[str]) -> float | None:
    """Standard error of the mean score when items of one cluster (image) depend on one another.

    sqrt(G / (G - 1) sum_g (sum_i in g (s_i - mean))^2) / n, the cluster-robust (CR1) estimate;
    with an image an item it is the usual standard error. None with a single cluster.
    """
    mean = math.fsum(scores) / len(scores)
    return clustered([(score - mean) / len(scores) for score in scores], clusters)


def clustered(influences: Sequence[float], clusters: Sequence[str]) -> float | None:
    """Standard error of an estimate from what each item moves it by, items in clusters.

    sqrt(G / (G - 1) sum_g (sum_i in g u_i)^2) for influences u_i and G clusters (CR1); None with a
    single cluster.
    """
    return _spread(_by_cluster(influences, clusters))


def _by_cluster(influences: Iterable[float], clusters: Iterable[str]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for influence, cluster in zip(influences, clusters, strict=True):
        sums[cluster] += influence
    return dict(sums)


def _spread(sums: Mapping[str, float]) -> float | None:
    n_clusters = len(sums)
    if n_clusters < 2:
        return None
    squares = math.fsum(influence**2 for influence in sums.values())
    return math.sqrt(n_clusters / (n_clusters - 1) * squares)


def _scores_row(
    rows: Sequence[Mapping[str, Any]], compat: bool, incomplete: bool
) -> tuple[dict[str, Any], dict[str, float]]:
    first = rows[0]
    _check_group(rows)
    where = f"run {first['run_id']}, benchmark {first['benchmark']}"
    metric = metrics.get(first["metric"], where)
    lacking = None if incomplete else metric.incomplete(rows)
    if lacking:
        raise InputError(f"{where}: {lacking}; score it all the same with --incomplete")
    total = metric.summer(compat)(rows)
    images = _by_cluster(total.influences, [row["image_id"] for row in rows])
    scores = {
        **{name: first.get(name) for name in SHARED},
        "score": total.score,
        "error": 1 - total.score,
        "n_items": len(rows),
        "stderr": _spread(images),
        "parser": first.get("parser"),
    }
    return scores, images


def _check_group(rows: Sequence[Mapping[str, Any]]) -> None:
    first, seen = rows[0], set()
    where = f"run {first['run_id']}, benchmark {first['benchmark']}"
    common = getattr(first, "common", None)
    for row in rows:
        if row["item_id"] in seen:
            raise InputError(f"{where}: item '{row['item_id']}' stands twice")
        seen.add(row["item_id"])
        if common is not None and getattr(row, "common", None) is common:
            continue  # Lean rows that share their cells.
        for name in SHARED:
            if row.get(name) != first.get(name):
                raise InputError(
                    f"{where}: column '{name}' is {first.get(name)} in one row and "
                    f"{row.get(name)} in another; give the runs different run_id"
                )
