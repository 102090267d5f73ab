"""MMBench (Liu et al. 2023, arXiv 2307.06281): a question counts if right in every rotation."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from vtc.evaluate.benchmarks.mmbench_last import last_letter
from vtc.evaluate.benchmarks.rows import DataRow
from vtc.evaluate.benchmarks.spec import LETTER, HubData, Spec
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, Row, Scored, Total, Truth

LETTERS = "ABCDE"
_CIRCLE = 1_000_000  # A rotated copy of question i has the index i + k * 10^6.
_SENTENCE = 3  # In a longer answer "A" may be the article.
# How a letter may be decorated, before and behind, in the order in which they are tried.
_DECORATED = (
    ("", "."),
    ("", ","),
    ("", ":"),
    ("", ")"),
    ("", ")."),
    ("(", ")"),
    ("(", ")."),
    (":", ""),
    (":", ","),
    (":", "."),
    (":", ")"),
    (":", ")."),
)


def parse(prediction: str, choices: Sequence[tuple[str, str]]) -> str:
    """The option a prediction names, by its letter or else by its text; "" if undecided.

    `choices` are the options, (letter, text).
    """
    words = prediction.split()
    bare = [option for option in LETTERS if option in words]
    if len(bare) == 1 and not ("A" in words and len(words) > _SENTENCE):
        return bare[0]
    for before, behind in _DECORATED:
        found = [option for option in LETTERS if f"{before}{option}{behind}" in words]
        if len(found) == 1:
            return found[0]
    text = prediction.lower()
    named = [option for option, choice in choices if choice.lower() in text]
    return named[0] if len(named) == 1 else ""


def score(prediction: str, truth: Truth) -> Scored:
    """1 if the prediction names the right option; options that are missing are none."""
    choices = [pair for pair in zip(LETTERS, truth.choices, strict=False) if _is_there(pair[1])]
    parsed = parse(prediction, choices)
    return Scored(parsed, float(parsed in truth.references))


def score_as_harness(prediction: str, truth: Truth) -> Scored:
    """As lmms-eval without a judge (its mode `static`).

    An option that is missing has the text "nan", which "banana" holds; what stays undecided goes to
    an extractor that takes almost any capital for an option.
    """
    texts = [choice or "nan" for choice in truth.choices]
    texts += ["nan"] * (truth.about.get("n_columns", len(texts)) - len(texts))
    options = list(zip(LETTERS, texts, strict=False))
    parsed = parse(prediction, options) or last_letter(prediction, [name for name, _ in options])
    return Scored(parsed, float(parsed in truth.references))


def total(rows: Sequence[Row]) -> Total:
    """The share of questions whose every rotation is right."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[row["group"] or row["item_id"]].append(index)
    right = {name: float(all(rows[i]["score"] == 1 for i in own)) for name, own in groups.items()}
    average = sum(right.values()) / len(right)
    influences = [0.0] * len(rows)
    for name, own in groups.items():
        for index in own:
            influences[index] = (right[name] - average) / len(right) / len(own)
    return Total(average, influences)


def incomplete(rows: Sequence[Row]) -> str | None:
    """Which question does not have a row for each of its options, of those that are there.

    A question of 2 options has 2 rows, of 3 three. With all rows of the split nothing is missing,
    whatever its circles are: the harness scores those rows that there are.
    """
    sizes = Counter(row["group"] for row in rows)
    whole = len(rows) == SPEC.n_rows
    for row in rows:
        if not row["group"]:
            return f"item {row['item_id']} has no group"
        wanted = sum(map(_is_there, row["choices"] or ()))
        if sizes[row["group"]] < wanted and not whole:
            return f"question {row['group']} has {sizes[row['group']]} of its {wanted} rotations"
    return None


METRIC = Metric(
    score,
    "mmbench/1",
    "an option by letter or text, right in every rotation (MMBench)",
    compat=score_as_harness,
    total=total,
    incomplete=incomplete,
)


def group(row: DataRow) -> str:
    """The question that a row asks, in whatever rotation."""
    return str(row.integer("index") % _CIRCLE)


def item(row: DataRow) -> Item:
    """A row as an item; `hint` and the options C to E may say "nan". "None" is an option."""
    question, hint = row.text("question"), row.maybe("hint")
    columns = [option for option in LETTERS if option in row.cells]
    # A and B are always there: a text "nan" or "None" in them is an option.
    texts = [row.text(o) if o in "AB" or _is_there(row.cells[o]) else None for o in columns or "AB"]
    while texts and texts[-1] is None:
        texts.pop()
    choices = [text or "" for text in texts]
    answer = row.text("answer").strip()
    if answer not in LETTERS[: len(choices)]:
        raise row.fault("answer", f"a letter of {LETTERS[: len(choices)]}", answer)
    asked = f"{hint} {question}" if hint else question
    return Item(
        item_id=str(row.integer("index")),
        images=row.images("image"),
        question=question,
        prompt=f"{asked} There are several options:\n{_lines(choices)}\n{LETTER}",
        references=[answer],
        choices=tuple(choices),
        category=row.maybe("category"),
        group=group(row),
        about={"n_columns": len(columns)},
    )


def _lines(choices: Sequence[str]) -> str:
    """Options a line each; one that is missing keeps its letter."""
    lines = [
        f"{option}. {choice}" for option, choice in zip(LETTERS, choices, strict=False) if choice
    ]
    return "\n".join(lines)


def _is_there(choice: Any) -> bool:
    return choice is not None and str(choice).strip().lower() not in ("", "nan")


SPEC = Spec(
    name="mmbench",
    title="MMBench (en, dev, circular)",
    task="reasoning",
    metric="mmbench",
    data=HubData.of("MMBench", "dev", "en"),
    n_rows=4329,
    item=item,
    prompt="{hint} {question} There are several options:\n{A. option lines}\n" + LETTER,
    paper="arXiv 2307.06281",
    max_new_tokens=1024,
    group=group,
)
