"""POPE (Li et al. 2023, arXiv 2305.10355): is this object in the image? F1 over all questions."""

import re
from collections.abc import Sequence

from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import SHORT, HubData, Spec
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, Row, Scored, Total, Truth

_FIRST_WORD = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


def parse(prediction: str) -> str:
    """ "yes" or "no" if the first word is one of them, whatever follows, else "other"."""
    found = _FIRST_WORD.match(prediction)
    return found[1].lower() if found else "other"


def parse_as_harness(prediction: str) -> str:
    """As lmms-eval: the whole text in lower case, so that "yes." is neither yes nor no."""
    return prediction.lower().strip()


def score(prediction: str, truth: Truth) -> Scored:
    """1 if the parsed prediction is the truth."""
    parsed = parse(prediction)
    return Scored(parsed, float(parsed in _wanted(truth)))


def score_as_harness(prediction: str, truth: Truth) -> Scored:
    """1 if the text is the truth."""
    parsed = parse_as_harness(prediction)
    return Scored(parsed, float(parsed in _wanted(truth)))


def _wanted(truth: Truth) -> list[str]:
    return [reference.lower().strip() for reference in truth.references]


def total(rows: Sequence[Row]) -> Total:
    """F1 of "yes" over all rows: 2 TP / (2 TP + FP + FN); an object not answered is missed."""
    return _f1(rows, unanswered_is_missed=True)


def total_as_harness(rows: Sequence[Row]) -> Total:
    """As lmms-eval: a missed object counts only where the answer is "no"."""
    return _f1(rows, unanswered_is_missed=False)


def _f1(rows: Sequence[Row], unanswered_is_missed: bool) -> Total:
    hits, weights = [], []
    for row in rows:
        there = "yes" in [reference.lower().strip() for reference in row["references"]]
        # A row whose image did not open has a score of 0, whatever its text says.
        said = "other" if row.get("fault") else row["parsed"]
        hit = float(there and said == "yes")
        false_alarm = float(not there and said == "yes")
        missed = float(there and (said == "no" or (unanswered_is_missed and said != "yes")))
        hits.append(2 * hit)
        weights.append(2 * hit + false_alarm + missed)
    weight = sum(weights)
    if not weight:
        return Total(0.0, [0.0] * len(rows))
    f1 = sum(hits) / weight
    return Total(f1, [(h - f1 * w) / weight for h, w in zip(hits, weights, strict=True)])


METRIC = Metric(
    score,
    "pope/1",
    "yes or no, F1 of yes (POPE)",
    compat=score_as_harness,
    total=total,
    closed=frozenset({"yes", "no"}),
    compat_total=total_as_harness,
)


def item(row: DataRow) -> Item:
    """A row as an item; question ids repeat between the three categories."""
    question, answer = row.text("question").strip(), row.text("answer")
    if answer.lower().strip() not in ("yes", "no"):
        raise row.fault("answer", "yes or no", answer)
    category = row.maybe("category")
    name = row.maybe("question_id") or row.maybe("id") or ""
    return Item(
        item_id=f"{category}/{name}" if category and name else name,
        images=row.images("image"),
        question=question,
        prompt=question + SHORT,
        references=[answer],
        category=category,
    )


SPEC = Spec(
    name="pope",
    title="POPE",
    task="reasoning",
    metric="pope",
    data=HubData.of("POPE", "test"),
    n_rows=9000,
    item=item,
    prompt="{question}" + SHORT,
    paper="arXiv 2305.10355",
    max_new_tokens=128,
)
