"""AI2D (Kembhavi et al. 2016, arXiv 1603.07396): diagrams of school books, four options."""

import re

from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import LETTER, HubData, Spec, letter, lettered
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, Scored, Truth
from vtc.evaluate.texts import exact_match, exact_match_as_harness

_LEADING_LETTER = re.compile(r"\s*([A-Z])\.")


def parse(prediction: str) -> str:
    """The letter that the prediction begins with if a dot follows it, else the prediction."""
    found = _LEADING_LETTER.match(prediction)
    return found[1] if found else prediction


def score(prediction: str, truth: Truth) -> Scored:
    """1 if the parsed letter is the truth, in any case and without punctuation."""
    return exact_match(parse(prediction), truth.references)


def score_as_harness(prediction: str, truth: Truth) -> Scored:
    """As lmms-eval's exact match."""
    return exact_match_as_harness(parse(prediction), truth.references)


METRIC = Metric(
    score, "ai2d/1", "an option's letter, with or without its dot (AI2D)", compat=score_as_harness
)


def item(row: DataRow) -> Item:
    """A row as an item; `answer` is the number of the right option, from 0."""
    question, choices = row.text("question"), row.texts("options")
    number = row.integer("answer")
    if not 0 <= number < len(choices):
        raise row.fault("answer", f"the number of one of {len(choices)} options", number)
    return Item(
        item_id=row.maybe("question_id") or row.maybe("id") or "",
        images=row.images("image"),
        question=question,
        prompt=f"{question}\n{lettered(choices)}{LETTER}",
        references=[letter(number)],
        choices=tuple(choices),
    )


SPEC = Spec(
    name="ai2d",
    title="AI2D",
    task="reasoning",
    metric="ai2d",
    data=HubData.of("ai2d", "test"),
    n_rows=3088,
    item=item,
    prompt="{question}\n{A. option lines}" + LETTER,
    paper="arXiv 1603.07396",
)
