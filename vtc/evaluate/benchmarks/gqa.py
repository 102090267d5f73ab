"""GQA (Hudson and Manning 2019, arXiv 1902.09506): questions made of scene graphs, testdev."""

from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import SHORT, HubData, Joined, Spec
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, Scored, Truth
from vtc.evaluate.texts import exact_match, exact_match_as_harness


def score(prediction: str, truth: Truth) -> Scored:
    """1 if the prediction is the answer, in lower case and without punctuation."""
    return exact_match(prediction, truth.references)


def score_as_harness(prediction: str, truth: Truth) -> Scored:
    """As lmms-eval: punctuation alone equals any other punctuation."""
    return exact_match_as_harness(prediction, truth.references)


METRIC = Metric(
    score,
    "exact_match/1",
    "equal in lower case without punctuation (GQA)",
    compat=score_as_harness,
)


def item(row: DataRow) -> Item:
    """A row as an item; its image is joined by `imageId`."""
    question = row.text("question")
    return Item(
        item_id=row.text("id"),
        images=row.images("image"),
        question=question,
        prompt=question + SHORT,
        references=[row.text("answer")],
    )


SPEC = Spec(
    name="gqa",
    title="GQA",
    task="reasoning",
    metric="exact_match",
    data=HubData.of("GQA", "testdev", "testdev_balanced_instructions"),
    n_rows=12_578,
    item=item,
    prompt="{question}" + SHORT,
    paper="arXiv 1902.09506",
    joined=Joined(HubData.of("GQA", "testdev", "testdev_balanced_images"), "id", "imageId"),
)
