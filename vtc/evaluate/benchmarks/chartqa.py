"""ChartQA (Masry et al. 2022, arXiv 2203.10244): questions on charts, human and machine made."""

from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import HubData, Spec
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, Scored, Truth
from vtc.evaluate.texts import relaxed, relaxed_as_harness

_ASKED = "\nAnswer the question with a single word."


def score(prediction: str, truth: Truth) -> Scored:
    """1 if within 5 % of a number, or the same text in any case."""
    return relaxed(prediction, truth.references)


def score_as_harness(prediction: str, truth: Truth) -> Scored:
    """As lmms-eval: "nan" and "inf" are numbers."""
    return relaxed_as_harness(prediction, truth.references)


METRIC = Metric(
    score,
    "relaxed/1",
    "within 5 % of a number, else equal text (ChartQA)",
    compat=score_as_harness,
)


def item(row: DataRow) -> Item:
    """A row as an item; `type` says human or augmented."""
    question = row.text("question")
    return Item(
        item_id=row.maybe("question_id") or row.maybe("id") or "",
        images=row.images("image"),
        question=question,
        prompt=question + _ASKED,
        references=[row.text("answer")],
        category="human" if row.maybe("type") == "human_test" else "augmented",
    )


SPEC = Spec(
    name="chartqa",
    title="ChartQA",
    task="reasoning",
    metric="relaxed",
    data=HubData.of("ChartQA", "test"),
    n_rows=2500,
    item=item,
    prompt="{question}" + _ASKED,
    paper="arXiv 2203.10244",
)
