"""ScienceQA (Lu et al. 2022, arXiv 2209.09513), the questions with an image of the test split."""

from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import LETTER, HubData, Spec, letter, lettered
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, Scored, Truth


def parse(prediction: str) -> str:
    """The first letter if it is a capital with a dot behind it, else the prediction."""
    prediction = prediction.strip()
    if len(prediction) > 1 and prediction[0].isupper() and prediction[1] == ".":
        return prediction[0]
    return prediction


def score(prediction: str, truth: Truth) -> Scored:
    """1 if the prediction is the letter, in any case, or begins with it as in "B. ..."."""
    parsed = parse(prediction)
    whole = prediction.strip().lower()
    right = any(parsed == r or whole == r.lower() for r in truth.references)
    return Scored(parsed, float(right))


METRIC = Metric(score, "scienceqa/1", "an option's letter alone, or with a dot first (ScienceQA)")


def item(row: DataRow) -> Item:
    """A row as an item; `answer` is the number of the right option, from 0."""
    question, choices, hint = row.text("question"), row.texts("choices"), row.maybe("hint")
    number = row.integer("answer")
    if not 0 <= number < len(choices):
        raise row.fault("answer", f"the number of one of {len(choices)} choices", number)
    context = f"Context: {hint}\n" if hint else ""
    return Item(
        item_id=row.maybe("id") or "",
        images=row.images("image"),
        question=question,
        prompt=f"{context}{question}\n{lettered(choices)}{LETTER}",
        references=[letter(number)],
        choices=tuple(choices),
        category=row.maybe("subject"),
    )


SPEC = Spec(
    name="scienceqa",
    title="ScienceQA-IMG",
    task="reasoning",
    metric="scienceqa",
    data=HubData.of("ScienceQA", "test", "ScienceQA-IMG"),
    n_rows=2017,
    item=item,
    prompt="Context: {hint}\n{question}\n{A. choice lines}" + LETTER,
    paper="arXiv 2209.09513",
)
