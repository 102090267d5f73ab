"""VQAv2 (Goyal et al. 2017, arXiv 1612.00837): questions on photographs, validation split."""

from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import SHORT, HubData, Spec
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, Scored, Truth
from vtc.evaluate.texts import vqa_v2


def score(prediction: str, truth: Truth) -> Scored:
    """Agreement with the humans, each left out in turn, normalised as VQAv2's script does."""
    return vqa_v2(prediction, truth.references)


METRIC = Metric(
    score,
    "vqav2/1",
    "agreement with ten humans by VQAv2's shorter normaliser (VQAv2)",
    min_references=4,
)


def item(row: DataRow) -> Item:
    """A row as an item; each answer is an object with `answer`."""
    question = row.text("question")
    return Item(
        item_id=row.text("question_id"),
        images=row.images("image"),
        question=question,
        prompt=question + SHORT,
        references=row.answers("answers"),
        category=row.maybe("question_type"),
    )


SPEC = Spec(
    name="vqav2",
    title="VQAv2",
    task="general",
    metric="vqav2",
    data=HubData.of("VQAv2", "validation"),
    n_rows=214_354,
    item=item,
    prompt="{question}" + SHORT,
    paper="arXiv 1612.00837",
)
