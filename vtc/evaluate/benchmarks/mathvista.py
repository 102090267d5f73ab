"""MathVista (Lu et al. 2023, arXiv 2310.02255), testmini; scored by rules, without a judge model.

The official script asks GPT-4 to extract the answer from the text. Here it is read by rules, so
that scores do not depend on a judge; prompts ask for a bare answer, which leaves little to read.
"""

from collections.abc import Mapping, Sequence

from vtc.evaluate.benchmarks.mathvista_rules import extract
from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import LETTER, HubData, Spec, lettered
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, Row, Scored, Total, Truth, mean
from vtc.evaluate.texts import levenshtein

CHOICE = "multi_choice"
_HINTS = {
    "integer": "\nAnswer the question using a single integer number.",
    "list": "\nAnswer the question using a Python list.",
}
_DECIMALS = {1: "one decimal place", 2: "two decimal places"}


def normalise(extraction: str, truth: Truth, precision: int | None) -> str | None:
    """An extracted answer in the form of the truth; None if it cannot have it.

    Multiple choice: the text of the option, by the first letter in brackets or a bare letter, else
    the nearest text (Levenshtein, the first of equals). Numbers: as int, or rounded to `precision`.
    """
    kind = truth.about.get("answer_type")
    if truth.about.get("question_type") == CHOICE:
        return _choice(extraction.strip(), truth.choices)
    try:
        if kind == "integer":
            return str(int(float(extraction)))
        if kind == "float":
            return str(round(float(extraction), precision)) if precision is not None else None
    except (ValueError, OverflowError):
        return None
    return extraction


def score(prediction: str, truth: Truth) -> Scored:
    """1 if the answer read from the prediction by rules equals the truth."""
    precision = truth.about.get("precision")
    text = extract(prediction, truth)
    found = None
    if text:
        found = normalise(text, truth, None if precision is None else int(precision))
    return _scored(found, truth)


def score_as_harness(prediction: str, truth: Truth) -> Scored:
    """As lmms-eval without a judge: only bare answers are read, floats are always wrong.

    (`precision` is a float there, which Python's round refuses.) An answer that was not read is
    the shortest option of a multiple choice.
    """
    text = _bare(prediction, truth)
    found = (
        None
        if truth.about.get("answer_type") == "float" and not _has_choices(truth)
        else (normalise(text, truth, None))
    )
    return _scored(found, truth)


def total_as_harness(rows: Sequence[Row]) -> Total:
    """The mean, in per cent to two decimals."""
    found = mean(rows)
    return found._replace(score=round(100 * found.score, 2) / 100)


METRIC = Metric(
    score,
    "mathvista-rules/1",
    "option, number or list read by rules, no judge model (MathVista)",
    compat=score_as_harness,
    compat_total=total_as_harness,
)


def item(row: DataRow) -> Item:
    """A row as an item; the prompt says what kind of answer to give."""
    question, unit = row.text("question"), row.maybe("unit")
    question_type, answer_type = row.text("question_type"), row.text("answer_type")
    choices = row.texts("choices") if row.has("choices") else []
    precision = row.integer("precision") if row.maybe("precision") else None
    answer = row.text("answer")
    asked = f"{question} (Unit: {unit})" if unit else question
    if question_type == CHOICE:
        if answer not in choices:
            raise row.fault("answer", "one of the choices", answer)
        prompt = f"{asked}\n{lettered(choices)}{LETTER}"
    else:
        prompt = asked + _hint(answer_type, precision)
    return Item(
        item_id=row.text("pid"),
        images=row.images("decoded_image"),
        question=question,
        prompt=prompt,
        references=[answer],
        choices=tuple(choices),
        category=_task(row) or question_type,
        about={
            "question_type": question_type,
            "answer_type": answer_type,
            "precision": precision,
        },
    )


def _task(row: DataRow) -> str | None:
    """What a question is of ("figure question answering"), as its metadata say."""
    found = row.cells.get("metadata")
    task = found.get("task") if isinstance(found, Mapping) else None
    return str(task) if task else None


def _hint(answer_type: str, precision: int | None) -> str:
    if answer_type in _HINTS:
        return _HINTS[answer_type]
    places = _DECIMALS.get(precision or 0, f"{precision} decimal places")
    return f"\nAnswer the question using a single floating-point number with {places}."


def _choice(text: str, choices: Sequence[str]) -> str | None:
    letters = [chr(ord("A") + number) for number in range(len(choices))]
    named = next(
        (text[at + 1].upper() for at in range(len(text) - 2) if _in_brackets(text[at : at + 3])),
        text,
    )
    if named in letters:
        return choices[letters.index(named)]
    distances = [levenshtein(named, choice) for choice in choices]
    return choices[distances.index(min(distances))] if choices else None


def _in_brackets(three: str) -> bool:
    middle = three[1:2]
    return three[:1] == "(" and three[2:] == ")" and middle.isascii() and middle.isalpha()


def _bare(prediction: str, truth: Truth) -> str:
    """The prediction if it is nothing but an answer, else the empty text."""
    kind = truth.about.get("answer_type")
    if _has_choices(truth) and prediction in truth.choices:
        return prediction
    for wanted, read in (("integer", int), ("float", float)):
        if kind == wanted:
            try:
                return str(read(prediction))
            except (ValueError, OverflowError):
                return ""
    return ""


def _has_choices(truth: Truth) -> bool:
    return truth.about.get("question_type") == CHOICE


def _scored(found: str | None, truth: Truth) -> Scored:
    text = str(found).strip()
    right = any(text == reference.strip() for reference in truth.references)
    return Scored("" if found is None else text, float(right))


SPEC = Spec(
    name="mathvista",
    title="MathVista (testmini)",
    task="reasoning",
    metric="mathvista",
    data=HubData(("AI4Math/MathVista",), "testmini"),
    n_rows=1000,
    item=item,
    prompt="{question} (Unit: {unit})\n{A. choice lines}" + LETTER + " | " + str(_HINTS),
    paper="arXiv 2310.02255",
    max_new_tokens=1024,
    image_columns=("decoded_image",),
)
