"""Metrics of one item: pure functions (prediction, truth) -> (parsed answer, score)."""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vtc.errors import InputError
from vtc.evaluate.answers import normalise

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ANLS_THRESHOLD = 0.5  # Biten et al. 2019 (ST-VQA), equation 1: worse answers count as misread.
_RELAXED_TOLERANCE = 0.05  # Masry et al. 2022 (ChartQA), section 5.
_VQA_AGREEMENT = 3  # Antol et al. 2015 (VQA), section 4: right if three humans said so.


class Scored(NamedTuple):
    """What a metric read from a prediction, and the score in [0, 1] it gives it."""

    parsed: str
    score: float


class Truth(NamedTuple):
    """What a prediction is held against: accepted answers, and what else a metric may read."""

    references: Sequence[str]
    choices: Sequence[str] = ()
    category: str | None = None
    about: Mapping[str, Any] = {}


Score = Callable[[str, Truth], Scored]
"""Scores one prediction against the truth about its item."""


@dataclass(frozen=True)
class Metric:
    """A metric, the name and version of its parser, and what it needs of an item."""

    score: Score
    parser: str
    meaning: str
    min_references: int = 1


def exact_match(prediction: str, references: Sequence[str]) -> Scored:
    """1 if the prediction equals a reference in lower case without punctuation (GQA), else 0.

    Texts of punctuation alone, which that leaves empty, must be equal as they stand.
    """
    parsed = _plain(prediction)
    return Scored(parsed, float(any(parsed == _plain(reference) for reference in references)))


def relaxed(prediction: str, references: Sequence[str]) -> Scored:
    """1 if the prediction is within 5 % of a number, or equals a text (ChartQA), else 0.

    A trailing "%" divides by 100. A reference of zero, or no number, is compared as text, in any
    case of letters.
    """
    parsed = prediction.strip()
    return Scored(parsed, float(any(_relaxed_one(parsed, r.strip()) for r in references)))


def anls(prediction: str, references: Sequence[str]) -> Scored:
    """Average normalised Levenshtein similarity of one item (DocVQA): 1 - distance / length.

    The best over the references; below 0.5 it is 0. The length is the longer raw text's.
    """
    parsed = _collapsed(prediction)
    best = max((_similarity(prediction, parsed, r) for r in references), default=0.0)
    return Scored(parsed, best if best >= _ANLS_THRESHOLD else 0.0)


def vqa(prediction: str, references: Sequence[str]) -> Scored:
    """VQA accuracy, each human left out in turn: the mean of min(1, others who agree / 3).

    Prediction and references (ten, in TextVQA and VizWiz) are normalised first. With ten, 1, 2, 3
    and 4 or more that agree give 0.3, 0.6, 0.9 and 1. VQAv2's own script normalises less: it
    leaves "'s" and lone commas to the rules of punctuation.
    """
    parsed = normalise(prediction)
    agree = [parsed == normalise(reference) for reference in references]
    if not agree:
        return Scored(parsed, 0.0)
    # Counted in thirds, so that the order of the references cannot change the last bit.
    thirds = sum(min(_VQA_AGREEMENT, sum(agree) - own) for own in agree)
    return Scored(parsed, thirds / (_VQA_AGREEMENT * len(agree)))


def _of(score: Callable[[str, Sequence[str]], Scored]) -> Score:
    """A metric that reads nothing of the truth but the references."""
    return lambda prediction, truth: score(prediction, truth.references)


METRICS: dict[str, Metric] = {
    "exact_match": Metric(
        _of(exact_match), "exact_match/1", "equal in lower case without punctuation (GQA)"
    ),
    "relaxed": Metric(
        _of(relaxed), "relaxed/1", "within 5 % of a number, else equal text (ChartQA)"
    ),
    "anls": Metric(_of(anls), "anls/1", "normalised Levenshtein similarity, 0 below 0.5 (DocVQA)"),
    "vqa": Metric(
        _of(vqa),
        "vqa/1",
        "agreement with ten humans, each left out in turn (TextVQA)",
        min_references=4,
    ),
}


def get(name: str, where: str) -> Metric:
    """The metric of that name; raises InputError naming `where` and the choices."""
    if name not in METRICS:
        raise InputError(f"{where}: no metric '{name}'; choose from {', '.join(METRICS)}")
    return METRICS[name]


def _plain(text: str) -> str:
    stripped = text.strip().lower()
    return stripped.translate(_NO_PUNCTUATION) or stripped


def _relaxed_one(prediction: str, reference: str) -> bool:
    found, wanted = _to_float(prediction), _to_float(reference)
    if found is not None and wanted:
        # Divided, as the definition is: at exactly 5 % a product rounds to the other side.
        return abs(found - wanted) / abs(wanted) <= _RELAXED_TOLERANCE
    return prediction.lower() == reference.lower()


def _to_float(text: str) -> float | None:
    try:
        value = float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(prediction: str, parsed: str, reference: str) -> float:
    length = max(len(prediction), len(reference))
    wanted = _collapsed(reference)
    if abs(len(parsed) - len(wanted)) > length * (1 - _ANLS_THRESHOLD):
        return 0.0  # The distance is at least the difference in length: below the threshold.
    return 1 - levenshtein(parsed, wanted) / length if length else 1.0


def levenshtein(first: str, second: str) -> int:
    """Least number of single-character insertions, deletions and substitutions between texts."""
    if first == second:
        return 0
    if len(first) < len(second):
        first, second = second, first
    above = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        row = [i]
        for j, other in enumerate(second, start=1):
            change = above[j - 1] + (letter != other)
            row.append(min(change, above[j] + 1, row[j - 1] + 1))
        above = row
    return above[-1]
