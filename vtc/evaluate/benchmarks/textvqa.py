"""TextVQA (Singh et al. 2019, arXiv 1904.08920): questions on text in photographs, validation."""

from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import SHORT, HubData, Spec
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, Scored, Truth
from vtc.evaluate.texts import vqa


def score(prediction: str, truth: Truth) -> Scored:
    """Agreement with the humans, each left out in turn."""
    return vqa(prediction, truth.references)


METRIC = Metric(
    score,
    "vqa/1",
    "agreement with ten humans, each left out in turn (TextVQA)",
    min_references=4,
)


def item(row: DataRow) -> Item:
    """A row as an item; the question's capitals but the first are lost, as in lmms-eval."""
    question = row.text("question")
    return Item(
        item_id=row.text("question_id"),
        images=row.images("image"),
        question=question,
        prompt=question.capitalize() + SHORT,
        references=row.answers("answers"),
    )


SPEC = Spec(
    name="textvqa",
    title="TextVQA",
    task="ocr",
    metric="vqa",
    data=HubData.of("textvqa", "validation"),
    n_rows=5000,
    item=item,
    prompt="{question with one capital, its first letter}" + SHORT,
    paper="arXiv 1904.08920",
    max_new_tokens=1024,
)
