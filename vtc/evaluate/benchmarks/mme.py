"""MME (Fu et al. 2023, arXiv 2306.13394): two yes/no questions an image, 14 categories."""

from collections import defaultdict
from collections.abc import Sequence

from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import SHORT, HubData, Spec
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, Row, Scored, Total, Truth

COGNITION = (
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
)
PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
_ASKED = " Please answer yes or no."
_PAIR = 2


def parse(prediction: str) -> str:
    """ "yes", "no" or "other": the first four letters decide, so that "Not sure" is a "no".

    The definition of the harness: lower case, without dots; a single letter y or n counts too.
    """
    text = prediction.lower().strip().replace(".", "")
    if text in ("yes", "no"):
        return text
    if len(text) == 1:
        return {"y": "yes", "n": "no"}.get(text, "other")
    head = text[:4]
    return "yes" if "yes" in head else "no" if "no" in head else "other"


def score(prediction: str, truth: Truth) -> Scored:
    """1 if the parsed prediction is the truth."""
    parsed = parse(prediction)
    wanted = {reference.lower().strip().replace(".", "") for reference in truth.references}
    return Scored(parsed, float(parsed in wanted))


def total(rows: Sequence[Row]) -> Total:
    """Perception plus cognition over the points to be had: 2800 with all 14 categories.

    A pair of questions of one image gives the mean of its scores, and as much again as 100 where
    both are right; a category is the mean of its pairs, 0 to 200 points.
    """
    pairs: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        pairs[row["category"] or ""][row["group"] or row["item_id"]].append(index)
    influences = [0.0] * len(rows)
    categories = []
    for found in pairs.values():
        values = {}
        for name, indices in found.items():
            scores = [rows[index]["score"] for index in indices]
            values[name] = (sum(scores) / len(scores) + float(all(s == 1 for s in scores))) / 2
        average = sum(values.values()) / len(values)
        categories.append(average)
        for name, indices in found.items():
            influence = (values[name] - average) / len(values) / len(pairs)
            for index in indices:
                influences[index] = influence / len(indices)
    return Total(sum(categories) / len(categories), influences)


def incomplete(rows: Sequence[Row]) -> str | None:
    """Which image does not have its two questions."""
    sizes: dict[str, int] = defaultdict(int)
    for row in rows:
        if not row["group"] or not row["category"]:
            return f"item {row['item_id']} has no group or no category"
        sizes[row["group"]] += 1
    odd = next((group for group, size in sizes.items() if size != _PAIR), None)
    return None if odd is None else f"image {odd} has {sizes[odd]} of its {_PAIR} questions"


METRIC = Metric(
    score,
    "mme/1",
    "yes or no, scored in pairs by category (MME)",
    total=total,
    closed=frozenset({"yes", "no"}),
    points=200,
    incomplete=incomplete,
)


def group(row: DataRow) -> str:
    """The pair of a row: the questions of one image in one category."""
    return f"{row.text('category')}/{row.text('question_id')}"


def item(row: DataRow) -> Item:
    """A row as an item; the two of an image are its pair."""
    question = row.text("question").strip()
    answer = row.text("answer")
    if answer.lower().strip().replace(".", "") not in ("yes", "no"):
        raise row.fault("answer", "Yes or No", answer)
    return Item(
        item_id=row.text("question_id"),
        images=row.images("image"),
        question=question,
        prompt=question.replace(_ASKED, "") + SHORT,
        references=[answer],
        category=row.text("category"),
        group=group(row),
    )


SPEC = Spec(
    name="mme",
    title="MME",
    task="reasoning",
    metric="mme",
    data=HubData.of("MME", "test"),
    n_rows=2374,
    item=item,
    prompt="{question without ' Please answer yes or no.'}" + SHORT,
    paper="arXiv 2306.13394",
    group=group,
    numbered=True,
)
