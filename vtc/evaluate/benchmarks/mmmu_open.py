"""MMMU's open questions: candidates are read from an answer and held against the accepted ones."""

import re
from collections.abc import Sequence

_INDICATORS = (
    "could be ",
    "so ",
    "is ",
    "thus ",
    "therefore ",
    "final ",
    "answer ",
    "result ",
)
_SENTENCE_END = re.compile(r"\.\s(?=[A-Z])|\n")
_NO_ANSWER = frozenset(":,.!?;'")
# Numbers with commas, in scientific notation, and others that are no part of such a number. None
# begins inside a run of digits: it would end as the run does, and a text of digits alone would take
# the square of its length.
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)

Candidate = str | float


def parse_open(prediction: str) -> list[Candidate]:
    """All candidates of an answer, normalised: what follows the words of a conclusion, and the
    numbers in it; without such words the whole answer.
    """  # fmt: skip
    conclusions = _conclusions(prediction)
    numbers = [number for part in conclusions for number in numbers_in(part)]
    return [found for text in (*conclusions, *numbers) for found in normal(text)]


def is_right(found: Sequence[Candidate], references: Sequence[str]) -> bool:
    """Whether a candidate equals an accepted number, or holds an accepted text."""
    accepted = [wanted for reference in references for wanted in normal(reference)]
    texts = [wanted for wanted in accepted if isinstance(wanted, str)]
    return any(
        any(wanted in one for wanted in texts) if isinstance(one, str) else one in accepted
        for one in found
    )


def normal(text: str) -> list[Candidate]:
    """A number rounded to two decimals; a text in lower case, a single character with a space
    before and behind it, so that it is no part of a word.
    """  # fmt: skip
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        lower = text.lower()
    return [f" {lower}", f"{lower} "] if len(lower) == 1 else [lower]


def numbers_in(text: str) -> list[str]:
    """The numbers in a text, as they are written."""
    return [number for pattern in _NUMBERS for number in pattern.findall(text)]


def shown(found: Sequence[Candidate]) -> str:
    """Candidates in a line, each once."""
    return " | ".join(dict.fromkeys(str(one).strip() for one in found))


def _conclusions(prediction: str) -> list[str]:
    whole = prediction.strip().strip(".").lower()
    # The harness splits after lowering, so that in effect only new lines end a sentence.
    sentences = _SENTENCE_END.split(whole)
    found = []
    for number, sentence in enumerate(sentences):
        # The last sentence may be an equation.
        indicators = (*_INDICATORS, "=") if number == len(sentences) - 1 else _INDICATORS
        tails = [sentence.split(word)[-1].strip() for word in indicators if word in sentence]
        # The first of the shortest that is not empty; an empty first one gives way.
        shortest = ""
        for tail in tails:
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in _NO_ANSWER:
            found.append(shortest)
    return found or [whole]
