"""Reading MathVista's answers by rules: a letter, the last number, the last list of a text."""

import re

from vtc.evaluate.benchmarks.rows import literal_list
from vtc.evaluate.metric import Truth

# A letter alone, or first in the text with a mark behind it, or in brackets, or concluded.
_LETTERS = (
    re.compile(r"\(?([A-Za-z])[).:]*"),
    re.compile(r"\(?([A-Z])[).:,]\s"),
    re.compile(r"\(?([A-Z])\)"),
)
_IN_BRACKETS = re.compile(r"\(([A-Za-z])\)")
_CONCLUDED = re.compile(r"(?:answer|option|choice)(?:\s+is)?\s*:?\s*\(?([A-Z])\b")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
_LIST = re.compile(r"\[[^\[\]]*\]")


def extract(prediction: str, truth: Truth) -> str:
    """The answer in a prediction, as a text; "" where there is none of the kind asked for."""
    text = prediction.strip()
    if truth.about.get("question_type") == "multi_choice":
        return _option(text, truth)
    kind = truth.about.get("answer_type")
    if kind in ("integer", "float"):
        return _number(text)
    if kind == "list":
        return _list(text, truth)
    return text


def _option(text: str, truth: Truth) -> str:
    """An option as "(B)" if a letter names it, else the text."""
    if text in truth.choices:
        return text
    last = chr(ord("A") + len(truth.choices) - 1)
    whole = _LETTERS[0].fullmatch(text)
    matches = [whole, *(pattern.match(text) for pattern in _LETTERS[1:])]
    matches += [*_IN_BRACKETS.finditer(text)][:1]
    matches += [*_CONCLUDED.finditer(text)][-1:]
    letters = [match[1].upper() for match in matches if match]
    named = next((found for found in letters if "A" <= found <= last), None)
    if named:
        return f"({named})"
    held = [choice for choice in truth.choices if choice and choice.lower() in text.lower()]
    return held[0] if len(held) == 1 else text


def _number(text: str) -> str:
    """The number that the text is, else the last one in it."""
    try:
        float(text)
    except ValueError:
        found = _NUMBER.findall(text)
        return found[-1].replace(",", "") if found else ""
    return text


def _list(text: str, truth: Truth) -> str:
    """The last list in a text: in the words of the truth if it has the same elements."""
    found = _LIST.findall(text)
    if not found:
        return text
    elements = literal_list(found[-1])
    same = [r for r in truth.references if elements is not None and literal_list(r) == elements]
    return same[0] if same else found[-1]
