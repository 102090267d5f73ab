"""The average error of a set of benchmarks: the Y that the paper's law is fitted to."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vtc.errors import InputError
from vtc.evaluate.aggregate import SHARED

SETS: dict[str, tuple[str, ...]] = {
    "reasoning": (
        "mme",
        "gqa",
        "ai2d",
        "mmbench",
        "mmmu",
        "scienceqa",
        "mathvista",
        "pope",
        "chartqa",
    ),
    "ocr": ("docvqa", "textvqa"),
}
"""The benchmarks of the paper's two averages (arXiv 2411.03312, section 3)."""

METRIC = "mean of benchmarks"
_RUN = tuple(n for n in SHARED if n not in ("benchmark", "task", "metric", "chance"))


def parse_sets(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Sets from texts such as "ocr=docvqa,my-receipts"; raises InputError for any other text."""
    found = {}
    for text in texts:
        name, mark, listed = text.partition("=")
        names = tuple(part.strip() for part in listed.split(",") if part.strip())
        if not name.strip() or not mark or not names or len(set(names)) != len(names):
            raise InputError(f"--set {text}: write NAME=BENCHMARK,BENCHMARK,...")
        found[name.strip()] = names
    return found


def averaged(
    scores: Sequence[Mapping[str, Any]], wanted: bool, sets: Sequence[str], incomplete: bool
) -> list[dict[str, Any]]:
    """The scores, or if `wanted` their averages over `sets`, texts as NAME=A,B; raises as both."""
    if sets and not wanted:
        raise InputError("--set names what to average; give --average too")
    if not wanted:
        return [dict(row) for row in scores]
    return average(scores, parse_sets(sets) or SETS, incomplete)


def check(benchmarks: Sequence[str], wanted: bool, sets: Sequence[str], incomplete: bool) -> None:
    """Raise InputError, before anything is evaluated, if these benchmarks will not average."""
    if wanted or sets:
        row = {"run_id": "", "visual_tokens": 0, "metric": "", "score": 0.0, "chance": None}
        rows = [{**row, "benchmark": n, "stderr": None, "n_items": None} for n in benchmarks]
        averaged(rows, wanted, sets, incomplete)


def average(
    scores: Sequence[Mapping[str, Any]],
    sets: Mapping[str, Sequence[str]] = SETS,
    incomplete: bool = False,
) -> list[dict[str, Any]]:
    """A scores row a run and set: the unweighted mean over its benchmarks, named by the set.

    The set's name is both benchmark and task of the row, so that `vtc fit` reads it. The standard
    error takes the benchmarks as independent: they do not share images. A set of which no run has a
    benchmark is left out; benchmarks in no set are, too.

    Raises InputError if a run lacks benchmarks of a set, naming them, unless `incomplete`; if a
    benchmark was scored by another rule in one run than in another; and if no set is left.
    """
    runs: dict[tuple, dict[str, Mapping[str, Any]]] = {}
    _refuse_mixed_rules(scores)
    for row in scores:
        fed = row["visual_tokens"], row.get("visual_tokens_repeated")
        found = runs.setdefault((row["run_id"], *fed), {})
        found[row["benchmark"]] = row
    have = {row["benchmark"] for row in scores}
    wanted = {name: names for name, names in sets.items() if have.intersection(names)}
    if not wanted:
        raise InputError(
            f"no benchmark of {' or '.join(sets)} is among {', '.join(sorted(have))}; name a set "
            "of your own with --set NAME=BENCHMARK,..."
        )
    rows = []
    for (run_id, *_), found in runs.items():
        for name, names in wanted.items():
            missing = [benchmark for benchmark in names if benchmark not in found]
            if missing and not incomplete:
                where = f"run {run_id}: " if run_id else ""
                raise InputError(
                    f"{where}the average '{name}' lacks {', '.join(missing)}; evaluate them, or "
                    "average what is there with --incomplete"
                )
            if len(missing) < len(names):
                rows.append(_average(name, [found[n] for n in names if n in found], len(names)))
    return rows


def _refuse_mixed_rules(scores: Sequence[Mapping[str, Any]]) -> None:
    rules: dict[str, Mapping[str, Any]] = {}
    for row in scores:
        other = rules.setdefault(row["benchmark"], row)
        if (other["metric"], other.get("parser")) != (row["metric"], row.get("parser")):
            raise InputError(
                f"benchmark {row['benchmark']} is scored by {other.get('parser')} in run "
                f"{other['run_id']}, by {row.get('parser')} in run {row['run_id']}"
            )


def _average(name: str, rows: Sequence[Mapping[str, Any]], n_wanted: int) -> dict[str, Any]:
    n = len(rows)
    score = math.fsum(row["score"] for row in rows) / n
    errors = [row["stderr"] for row in rows]
    chances = [row["chance"] for row in rows]
    counts = [row["n_items"] for row in rows]
    return {
        **{column: rows[0].get(column) for column in _RUN},
        "benchmark": name
        if n == n_wanted
        else f"{name}: {', '.join(r['benchmark'] for r in rows)}",
        "task": name,
        "metric": METRIC,
        "score": score,
        "error": 1 - score,
        "n_items": None if None in counts else sum(counts),
        "stderr": None if None in errors else math.sqrt(math.fsum(e**2 for e in errors)) / n,
        "chance": None if None in chances else math.fsum(chances) / n,
        "parser": _rule(rows),
    }


def _rule(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The parsers of the benchmarks, each once."""
    names = [row.get("parser") for row in rows]
    return ", ".join(dict.fromkeys(filter(None, names))) or None
