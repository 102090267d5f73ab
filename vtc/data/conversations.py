"""LLaVA's JSON as clean conversations: one row in, one sample or the reason why not.

Format: `id`, `image` (a path, or a list of them; absent for text alone), `conversations`
[{"from": "human" | "gpt" | "system", "value": str}], as in LLaVA's `docs/Finetune_Custom_Data.md`.
`regions` [{"text", "x", "y"}] is ours: what stands where in the first image, for
`--objective align`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

IMAGE = "<image>"

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}


class RowFault(Exception):
    """Why a row cannot be used; `image` is the path concerned, if one is."""

    def __init__(self, reason: str, image: str | None = None):
        super().__init__(reason)
        self.reason = reason
        self.image = image


def parse_row(row: Mapping[str, Any], default_id: str) -> dict[str, Any]:
    """One LLaVA row (or a row of samples.parquet) as a row of the samples table.

    Raises RowFault for a row without conversations, with roles out of order, an empty turn, or
    other than one `<image>` a listed image.
    """
    images = _images(row)
    turns = parse_turns(row.get("conversations", row.get("messages")))
    check_turns(turns)
    _check_image_marks(turns, images)
    given = row.get("id", row.get("sample_id"))
    return {
        "sample_id": default_id if given in (None, "") else str(given),
        "images": images,
        "conversations": turns,
        "regions": parse_regions(row.get("regions")),
        "n_text_tokens": row.get("n_text_tokens"),
    }


def parse_turns(conversations: Any) -> list[dict[str, str]]:
    """Turns as {role, text} in order, texts stripped; raises RowFault for anything else."""
    if not isinstance(conversations, Sequence) or isinstance(conversations, str):
        raise RowFault("no list of conversations")
    turns = []
    for number, turn in enumerate(conversations):
        if not isinstance(turn, Mapping):
            raise RowFault(f"turn {number} is not an object with 'from' and 'value'")
        name = turn.get("from", turn.get("role"))
        text = turn.get("value", turn.get("text", turn.get("content")))
        role = _ROLES.get(name) if isinstance(name, str) else None
        if role is None:
            raise RowFault(f"turn {number} is from '{name}'; known are {', '.join(_ROLES)}")
        if not isinstance(text, str):
            raise RowFault(f"turn {number} has no text")
        turns.append({"role": role, "text": text.strip()})
    return turns


def check_turns(turns: Sequence[Mapping[str, str]]) -> None:
    """Raise RowFault unless users and assistants alternate, user first, and nobody is silent."""
    spoken = list(turns)
    if spoken and spoken[0]["role"] == "system":
        spoken = spoken[1:]
    if not spoken:
        raise RowFault("empty conversation")
    for number, turn in enumerate(spoken):
        wanted = "user" if number % 2 == 0 else "assistant"
        if turn["role"] != wanted:
            raise RowFault(f"roles out of order: turn {number} should be the {wanted}'s")
        if not turn["text"]:
            kind = "answer" if wanted == "assistant" else "question"
            raise RowFault(f"empty {kind} in turn {number}")
    if len(spoken) % 2:
        raise RowFault("the conversation ends without an answer")


def parse_regions(regions: Any) -> list[dict[str, Any]] | None:
    """Regions as {text, x, y}, x and y as shares in [0, 1]; raises RowFault for anything else."""
    if regions is None:
        return None
    if not isinstance(regions, Sequence) or isinstance(regions, str):
        raise RowFault("regions is not a list")
    return [_region(region, number) for number, region in enumerate(regions)]


def _region(region: Any, number: int) -> dict[str, Any]:
    if not isinstance(region, Mapping) or not isinstance(region.get("text"), str):
        raise RowFault(f"region {number} has no text")
    place = {}
    for axis in ("x", "y"):
        value = region.get(axis)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise RowFault(f"region {number}: {axis} = {value} is no share in [0, 1]")
        place[axis] = float(value)
    return {"text": region["text"], **place}


def _images(row: Mapping[str, Any]) -> list[str]:
    given = row.get("image", row.get("images"))
    if given is None or given == "":
        return []
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list | tuple) or not all(isinstance(path, str) for path in listed):
        raise RowFault("image is neither a path nor a list of paths")
    return list(listed)


def _check_image_marks(turns: Sequence[Mapping[str, str]], images: Sequence[str]) -> None:
    spoken_by_user = sum(turn["text"].count(IMAGE) for turn in turns if turn["role"] == "user")
    marks = sum(turn["text"].count(IMAGE) for turn in turns)
    if marks != spoken_by_user:
        raise RowFault(f"{IMAGE} stands outside the user's turns")
    if marks != len(images):
        raise RowFault(
            f"{marks} {IMAGE} mark{'s' * (marks != 1)} for {len(images)} "
            f"image{'s' * (len(images) != 1)}",
            images[0] if images else None,
        )
