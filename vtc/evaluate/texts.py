"""Metrics of texts: pure functions (prediction, references) -> (parsed answer, score)."""

import string
from collections.abc import Callable, Sequence

from vtc.evaluate.answers import normalise, normalise_v2
from vtc.evaluate.metric import Scored

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ANLS_THRESHOLD = 0.5  # Biten et al. 2019 (ST-VQA), equation 1: worse answers count as misread.
_RELAXED_TOLERANCE = 0.05  # Masry et al. 2022 (ChartQA), section 5.
_VQA_AGREEMENT = 3  # Antol et al. 2015 (VQA), section 4: right if three humans said so.


def exact_match(prediction: str, references: Sequence[str]) -> Scored:
    """1 if the prediction equals a reference in lower case without punctuation (GQA), else 0.

    Texts of punctuation alone, which that leaves empty, must be equal as they stand.
    """
    parsed = _plain(prediction)
    return Scored(parsed, float(any(parsed == _plain(reference) for reference in references)))


def exact_match_as_harness(prediction: str, references: Sequence[str]) -> Scored:
    """`exact_match` as lmms-eval has it: also where nothing is left but the empty text.

    Its numpy arrays keep the length of the text, which "İ" outgrows in lower case, and drop NULs.
    """
    parsed, *accepted = (
        text.lower()[: len(text)].translate(_NO_PUNCTUATION).rstrip("\0")
        for text in (prediction, *references)
    )
    return Scored(parsed, float(parsed in accepted))


def relaxed(prediction: str, references: Sequence[str]) -> Scored:
    """1 if the prediction is within 5 % of a number, or equals a text (ChartQA), else 0.

    A trailing "%" divides by 100. A reference of zero, or no number, is compared as text, in any
    case of letters.
    """
    parsed = prediction.strip()
    return Scored(parsed, float(any(_relaxed_one(parsed, r.strip()) for r in references)))


def relaxed_as_harness(prediction: str, references: Sequence[str]) -> Scored:
    """`relaxed` as lmms-eval has it: "inf" and "nan" are numbers, and near to nothing."""
    return Scored(
        prediction, float(any(_relaxed_one(prediction, r, _any_float) for r in references))
    )


def anls(prediction: str, references: Sequence[str]) -> Scored:
    """Average normalised Levenshtein similarity of one item (DocVQA): 1 - distance / length.

    The best over the references; below 0.5 it is 0. The length is the longer raw text's, in
    capitals.
    """
    parsed = _collapsed(prediction)
    best = max((_similarity(prediction, parsed, r) for r in references), default=0.0)
    return Scored(parsed, best if best >= _ANLS_THRESHOLD else 0.0)


def vqa(prediction: str, references: Sequence[str]) -> Scored:
    """VQA accuracy, each human left out in turn: the mean of min(1, others who agree / 3).

    Prediction and references (ten, in TextVQA and VizWiz) are normalised first. With ten, 1, 2, 3
    and 4 or more that agree give 0.3, 0.6, 0.9 and 1.
    """
    return _agreement(prediction, references, normalise)


def vqa_v2(prediction: str, references: Sequence[str]) -> Scored:
    """`vqa` as VQAv2 has it: its script normalises less, and leaves "'s" and commas as marks."""
    return _agreement(prediction, references, normalise_v2)


def _agreement(prediction: str, references: Sequence[str], normal: Callable[[str], str]) -> Scored:
    parsed = normal(prediction)
    agree = [parsed == normal(reference) for reference in references]
    if not agree:
        return Scored(parsed, 0.0)
    # Counted in thirds, so that the order of the references cannot change the last bit.
    thirds = sum(min(_VQA_AGREEMENT, sum(agree) - own) for own in agree)
    return Scored(parsed, thirds / (_VQA_AGREEMENT * len(agree)))


def _plain(text: str) -> str:
    stripped = text.strip().lower()
    return stripped.translate(_NO_PUNCTUATION) or stripped


def _relaxed_one(
    prediction: str,
    reference: str,
    to_float: Callable[[str], float | None] | None = None,
) -> bool:
    to_float = to_float or _to_float
    found, wanted = to_float(prediction), to_float(reference)
    if found is not None and wanted:
        # Divided, as the definition is: at exactly 5 % a product rounds to the other side.
        return abs(found - wanted) / abs(wanted) <= _RELAXED_TOLERANCE
    return prediction.lower() == reference.lower()


def _any_float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _to_float(text: str) -> float | None:
    value = _any_float(text)
    return value if value is not None and abs(value) < float("inf") else None


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(prediction: str, parsed: str, reference: str) -> float:
    # In capitals, as the official script counts: "ß" becomes two letters.
    length = max(len(prediction.upper()), len(reference.upper()))
    wanted = _collapsed(reference)
    if abs(len(parsed) - len(wanted)) > length * (1 - _ANLS_THRESHOLD):
        return 0.0  # The distance is at least the difference in length: below the threshold.
    return 1 - levenshtein(parsed, wanted) / length if length else 1.0


def levenshtein(first: str, second: str) -> int:
    """Least number of single-character insertions, deletions and substitutions between texts.

    Bit-parallel (Myers 1999, in Hyyrö's form of 2003): a column of the table at a time, held as the
    bits of its vertical steps up and down, so that long texts take no longer than they must.
    """
    pattern, text = sorted((first, second), key=len)
    if not pattern:
        return len(text)
    places: dict[str, int] = {}
    for at, letter in enumerate(pattern):
        places[letter] = places.get(letter, 0) | 1 << at
    last, mask = 1 << len(pattern) - 1, (1 << len(pattern)) - 1
    up, down, distance = mask, 0, len(pattern)
    for letter in text:
        equal = places.get(letter, 0)
        diagonal = equal | down
        zero = (((equal & up) + up) ^ up) | equal
        right_up = down | ~(zero | up)
        right_down = up & zero
        distance += bool(right_up & last) - bool(right_down & last)
        right_up = right_up << 1 | 1
        up = (right_down << 1 | ~(diagonal | right_up)) & mask
        down = right_up & diagonal & mask
    return distance
