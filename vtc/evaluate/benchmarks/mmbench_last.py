"""The letter of last resort in MMBench's answers, as lmms-eval's mode without a judge reads it.

It takes almost any capital for an option: the A of "DNA" too. Used by `--compat lmms-eval` alone.
"""

from collections.abc import Sequence

_MARKS = ",.!?;:'\""
_PHRASES = (
    *(
        f"{the}{which}{what} is"
        for the in ("the ", "")
        for which, what in (
            ("", "answer"),
            ("correct ", "answer"),
            ("best ", "answer"),
            ("correct ", "option"),
            ("best ", "option"),
            ("", "choice"),
            ("correct ", "choice"),
        )
    ),
    "my answer is",
    "my choice is",
    "i choose",
    "i select",
    "i pick",
    "옵션",
    "정답은",
    "답은",
    "답:",
    "答案是",
    "答案为",
    "选",
    "答えは",
)
"""Words of a conclusion; any letter behind one of them counts."""
# How a letter may be written, the surest first; a bare letter anywhere comes last.
_FORMS = ("({})", "{}.", "{}:", "{})", "{} ", "{}")


def last_letter(prediction: str, letters: Sequence[str]) -> str:
    """The letter a prediction names, "" if it holds none.

    The first of these that holds, and of its letters the last: at the start, at the end, behind
    the words of a conclusion, "(A)", "A.", "A:", "A)", "A ", any.
    """
    marked = prediction.strip()
    for mark in _MARKS:
        marked = marked.strip(mark)
    text = marked.strip()
    if not text:
        return ""
    if text[0] in letters and not text[1:2].isalpha():
        return text[0]
    if text[-1] in letters and not text[-2:-1].isalpha():
        return text[-1]
    padded = f" {marked} "
    lower = padded.lower()
    behind = [lower.find(phrase) + len(phrase) for phrase in _PHRASES if phrase in lower]
    if behind:
        # Of each letter the first behind a phrase counts, of the letters the last.
        found = {padded.find(option, end): option for option in letters for end in behind}
        if max(found) >= 0:
            return found[max(found)]
    for form in _FORMS:
        places = {padded.rfind(form.format(option)): option for option in letters}
        if max(places) >= 0:
            return places[max(places)]
    return ""
