"""Fonts for letters that the usual one lacks: other scripts, out of what is installed."""

import logging
from collections.abc import Iterable
from typing import NamedTuple

from matplotlib import font_manager, rcParams
from matplotlib.ft2font import FT2Font

_PLAIN = (300, 500)  # Weights of a text's letters: neither thin nor bold.
_PLACEHOLDERS = ("Last Resort", "Adobe Blank")  # They have a glyph for all, and draw none of it.

_NAMED = 8  # Missing letters that are named.


class Fonts(NamedTuple):
    """Font families in the order in which a letter is sought, and the letters that none has."""

    families: list[str]
    missing: str


def boxes(missing: str) -> str:
    """The sentence about letters that no font has."""
    some = " ".join(missing[:_NAMED])
    more = " ..." if len(missing) > _NAMED else ""
    return (
        f"no installed font has the letters {some}{more}: they are drawn as boxes; install one "
        "that has them, such as Noto Sans CJK"
    )


def fonts_for(texts: Iterable[str]) -> Fonts:
    """The usual family, and behind it as few installed ones as have the letters that it lacks.

    Fonts installed since matplotlib made its list are found too. White space and controls are no
    letters.
    """
    usual = list(rcParams["font.family"])
    own = _letters(font_manager.findfont(font_manager.FontProperties(family=usual)))
    lacking = {c for text in texts for c in text if c.isprintable() and not c.isspace()}
    lacking -= {chr(code) for code in own}
    families = usual
    if lacking:
        found = _installed(lacking)
        while lacking and found:
            # The font with most of them; of equals the first by name, the same every time.
            best = max(sorted(found), key=lambda name: len(found[name] & lacking))
            if not found[best] & lacking:
                break
            lacking -= found.pop(best)
            families = [*families, best]
    return Fonts(families, "".join(sorted(lacking)))


def _installed(wanted: set[str]) -> dict[str, set[str]]:
    """Which of the letters wanted each upright installed font has, by its family's name."""
    codes = {ord(letter) for letter in wanted}
    # It says on stderr which weight it takes, where a family lacks the usual one.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):
            continue  # No font that can be drawn: one of bitmaps, or a damaged one.
    found: dict[str, set[str]] = {}
    for entry in font_manager.fontManager.ttflist:
        upright = entry.style == "normal" and entry.stretch in ("normal", 100)
        if not upright or not _is_plain(entry.weight) or entry.name.startswith(_PLACEHOLDERS):
            continue
        has = codes & _letters(entry.fname)
        if has:
            found.setdefault(entry.name, {chr(code) for code in has})
    return found


def _is_plain(weight: int | str) -> bool:
    if isinstance(weight, str):
        return weight in ("normal", "regular", "book", "medium", "roman", "light")
    return _PLAIN[0] <= weight <= _PLAIN[1]


def _letters(path: str) -> set[int]:
    """The code points that a font has, none of one that cannot be opened or scaled."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):
        return set()
    return set(font.get_charmap()) if font.scalable else set()
