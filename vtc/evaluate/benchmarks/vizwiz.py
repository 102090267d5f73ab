"""VizWiz-VQA (Gurari et al. 2018, arXiv 1802.08218): questions of blind people, validation."""

from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import SHORT, HubData, Spec
from vtc.evaluate.item import Item

_UNANSWERABLE = (
    "\nWhen the provided information is insufficient, respond with 'Unanswerable'." + SHORT
)


def item(row: DataRow) -> Item:
    """A row as an item; scored as TextVQA is."""
    question = row.text("question")
    return Item(
        item_id=row.text("question_id"),
        images=row.images("image"),
        question=question,
        prompt=question.capitalize() + _UNANSWERABLE,
        references=row.answers("answers"),
        category=row.maybe("category"),
    )


SPEC = Spec(
    name="vizwiz",
    title="VizWiz-VQA",
    task="general",
    metric="vqa",
    data=HubData.of("VizWiz-VQA", "val"),
    n_rows=4319,
    item=item,
    prompt="{question with one capital, its first letter}" + _UNANSWERABLE,
    paper="arXiv 1802.08218",
    max_new_tokens=1024,
)
