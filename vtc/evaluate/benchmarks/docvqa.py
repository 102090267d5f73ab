"""DocVQA (Mathew et al. 2021, arXiv 2007.00398): questions on scanned pages, validation split."""

from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import SHORT, HubData, Spec
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, Scored, Truth
from vtc.evaluate.texts import anls


def score(prediction: str, truth: Truth) -> Scored:
    """Normalised Levenshtein similarity to the nearest answer, 0 below one half."""
    return anls(prediction, truth.references)


METRIC = Metric(score, "anls/1", "normalised Levenshtein similarity, 0 below 0.5 (DocVQA)")


def item(row: DataRow) -> Item:
    """A row as an item."""
    question, answers = row.text("question"), row.texts("answers")
    if not answers:
        raise row.fault("answers", "at least one answer", answers)
    return Item(
        item_id=row.text("questionId"),
        images=row.images("image"),
        question=question,
        prompt=question + SHORT,
        references=answers,
    )


SPEC = Spec(
    name="docvqa",
    title="DocVQA",
    task="ocr",
    metric="anls",
    data=HubData.of("DocVQA", "validation", "DocVQA"),
    n_rows=5349,
    item=item,
    prompt="{question}" + SHORT,
    paper="arXiv 2007.00398",
    max_new_tokens=32,
)
