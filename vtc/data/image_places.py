"""Where the images of a turn stand: before its text, as in LLaVA, or behind it.

`--query-position after` (the query after the image) is LLaVA's order: image, newline, text.
`before` puts the text first. Under causal attention what stands before an image does not depend
on it, so a query that stays the same is then computed once for all images: the paper's Q = 0
(arXiv 2411.03312, section 3.2).
"""

from collections.abc import Sequence
from typing import Literal

from vtc.data.conversations import IMAGE

QueryPosition = Literal["after", "before"]


def place_images(
    turns: Sequence[dict[str, str]], position: QueryPosition = "after"
) -> list[dict[str, str]]:
    """The turns with the images of every user's turn on one side of its text.

    Each image takes a line of its own. Several images with text between them stay where they are:
    the text speaks of them by their places.
    """
    return [{**turn, "text": place(turn["text"], position)} for turn in turns]


def place(text: str, position: QueryPosition = "after") -> str:
    """One turn's text with its `<image>` marks on the side that `position` leaves to them."""
    marks = text.count(IMAGE)
    if not marks:
        return text
    parts = [part.strip() for part in text.split(IMAGE)]
    if marks > 1 and len(list(filter(None, parts))) > 1:
        return text
    # One mark inside a text leaves a gap that a space closes.
    query = " ".join(filter(None, parts))
    images = "\n".join([IMAGE] * marks)
    if not query:
        return images
    return f"{images}\n{query}" if position == "after" else f"{query}\n{images}"
