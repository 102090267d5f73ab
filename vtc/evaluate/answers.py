"""The answer normaliser of the VQA family of benchmarks (VQAv2, TextVQA, VizWiz)."""

import re
from functools import lru_cache

_CACHED = 1 << 16  # Answers repeat ("yes"): of 200,000 VQAv2 questions nine in ten are not new.
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
# The official expression means to spare dots after a digit but has its look-behind mistyped, so
# every dot that no digit follows goes; published scores are made with it, so it stays. So does the
# number of dots deleted: a flag was passed in the place of the count.
_DOT = re.compile(r"\.(?!\d)")
_MOST_DOTS = int(re.UNICODE)
_ARTICLES = frozenset(("a", "an", "the"))
_TEN = "zero one two three four five six seven eight nine ten"
_NUMBERS = {"none": "0", **{word: str(value) for value, word in enumerate(_TEN.split())}}
_SINGLE = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's "
    "how'd how'll how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've "
    "o'clock oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll "
    "someone's something'd something'll that's there'd there're there's they'd they'll they're "
    "they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's "
    "where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd "
    "you'll you're you've"
)
_DOUBLE = (
    "couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've "
    "someone'd've something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll "
    "y'all'd've you'd've 'ow's'at"
)


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:at] + word[at + 1 :] for at, mark in enumerate(word) if mark == "'"]


# "somebody'd" loses its apostrophe in the official table: an oddity kept, as scores depend on it.
_CONTRACTIONS = {
    **{word.replace("'", ""): word for word in _SINGLE.split()},
    **{key: word for word in _DOUBLE.split() for key in _without_one_apostrophe(word)},
    "somebody'd": "somebodyd",
}


@lru_cache(_CACHED)
def normalise(answer: str) -> str:
    """An answer in the normal form of the VQA family (the EvalAI answer processor).

    Lower case; punctuation deleted or turned into spaces; number words as digits; articles
    dropped; contractions with their apostrophes.
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalise_v2(text)


@lru_cache(_CACHED)
def normalise_v2(answer: str) -> str:
    """An answer in the normal form of VQAv2's own script.

    As `normalise`, but "'s", commas and question marks are punctuation like any other.
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    words = _without_punctuation(text).lower().split()
    numbered = (_NUMBERS.get(word, word) for word in words)
    kept = (word for word in numbered if word not in _ARTICLES)
    return " ".join(_CONTRACTIONS.get(word, word) for word in kept)


def _without_punctuation(text: str) -> str:
    """Delete a mark that touches a space anywhere in the text, else put a space in its place."""
    out = text
    delete_all = _DIGIT_COMMA_DIGIT.search(text) is not None
    for mark in _MARKS:
        if mark in text:
            touches = f"{mark} " in text or f" {mark}" in text
            out = out.replace(mark, "" if touches or delete_all else " ")
    return _DOT.sub("", out, count=_MOST_DOTS)
