"""MMMU (Yue et al. 2023, arXiv 2311.16502): college exams, several images an item, validation."""

import random
import re
from collections.abc import Sequence

from vtc.evaluate.benchmarks.mmmu_open import is_right, parse_open, shown
from vtc.evaluate.benchmarks.rows import DataRow, literal_list
from vtc.evaluate.benchmarks.spec import LETTER, SHORT, HubData, Spec, letter, lettered
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, Row, Scored, Total, Truth, mean

OPEN = "open"
_MARKS = ",.!?;:'"
_SHORT_ANSWER = 5  # Longer answers may name an option by its text.
_IMAGE = re.compile(r"<image (\d)>")
_N_IMAGES = 7


def parse_choice(prediction: str, choices: Sequence[str]) -> str:
    """The letter of the option a prediction names, the last one named; "" if it names none.

    Looked for in this order: "(B)", "B ", "B.", and in answers of more than five words the text of
    an option. The marks are plain parts of the text: "NASA rover" names A.
    """
    text = prediction
    for mark in _MARKS:
        text = text.strip(mark)
    text = f" {text} "
    options = {letter(number): choice for number, choice in enumerate(choices)}
    lower = text.lower()
    for pattern, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        named = [option for option in options if pattern.format(option) in text]
        if named:
            return _last(named, [text.rfind(place.format(option)) for option in named])
    if len(text.split()) > _SHORT_ANSWER:
        named = [option for option, choice in options.items() if choice.lower() in lower]
        if named:
            return _last(named, [lower.rfind(options[option].lower()) for option in named])
    return ""


def score(prediction: str, truth: Truth) -> Scored:
    """1 if the option named is right, or an open answer holds or equals an accepted one.

    An answer that names no option is wrong (the official script guesses at random).
    """
    if truth.about.get("question_type") == OPEN:
        found = parse_open(prediction)
        return Scored(shown(found), float(is_right(found, truth.references)))
    parsed = parse_choice(prediction, truth.choices)
    return Scored(parsed, float(parsed in truth.references))


def score_as_harness(prediction: str, truth: Truth) -> Scored:
    """As lmms-eval: every open question is wrong (it compares letters of the first candidate).

    What names no option is a random guess, here drawn by a seed made of the texts themselves.
    """
    if truth.about.get("question_type") == OPEN:
        return Scored(shown(parse_open(prediction)), 0.0)
    parsed = parse_choice(prediction, truth.choices)
    if not parsed and truth.choices:
        guess = random.Random("\n".join((prediction, *truth.choices)))
        parsed = guess.choice([letter(number) for number in range(len(truth.choices))])
    return Scored(parsed, float(parsed in truth.references))


def total_as_harness(rows: Sequence[Row]) -> Total:
    """The mean to five decimals."""
    found = mean(rows)
    return found._replace(score=round(found.score, 5))


METRIC = Metric(
    score,
    "mmmu/1",
    "an option by letter or text, or an open answer (MMMU)",
    compat=score_as_harness,
    compat_total=total_as_harness,
)


def item(row: DataRow) -> Item:
    """A row as an item; its images are those that question and options mention, in order."""
    question, choices = row.text("question"), row.texts("options")
    answer, is_open = row.text("answer"), row.text("question_type") == OPEN
    if is_open:
        accepted = literal_list(answer)
        references = [str(one) for one in accepted] if accepted else [answer]
        prompt = f"{question}\n{SHORT}"
    else:
        references = [answer]
        prompt = f"{question}\n{lettered(choices)}\n{LETTER}"
        if answer not in [letter(number) for number in range(len(choices))]:
            raise row.fault("answer", f"the letter of one of {len(choices)} options", answer)
    numbers = sorted({int(number) for number in _IMAGE.findall(prompt)})
    # A question that mentions none has its first image, if it has one.
    columns = [f"image_{number}" for number in numbers] or ["image_1"] * row.has("image_1")
    name = row.text("id")
    return Item(
        item_id=name,
        images=row.images(*columns),
        question=question,
        prompt=prompt,
        references=references,
        choices=() if is_open else tuple(choices),
        category=_subject(name),
        about={"question_type": OPEN if is_open else "multiple-choice"},
    )


def _subject(name: str) -> str | None:
    """The subject in an id such as validation_Art_Theory_1."""
    parts = name.split("_")
    return "_".join(parts[1:-1]) or None


def _last(named: Sequence[str], places: Sequence[int]) -> str:
    return named[places.index(max(places))]


SPEC = Spec(
    name="mmmu",
    title="MMMU",
    task="reasoning",
    metric="mmmu",
    data=HubData.of("MMMU", "validation"),
    n_rows=900,
    item=item,
    prompt="{question}\n{A. option lines}\n" + LETTER + " | open: {question}\n" + SHORT,
    paper="arXiv 2311.16502",
    max_new_tokens=128,
    image_columns=tuple(f"image_{number}" for number in range(1, _N_IMAGES + 1)),
)
