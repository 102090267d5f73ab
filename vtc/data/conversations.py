"""Rows of the usual formats as clean conversations: one row in, one sample or the reason why not.

- LLaVA: `id`, `image` (a path, or a list of them; absent for text alone), `conversations`
  [{"from": "human" | "gpt" | "system", "value": str}], as in its `docs/Finetune_Custom_Data.md`.
- OpenAI: `messages` [{"role", "content"}], the content a text or a list of parts of type text,
  image or image_url; an image part names its image or takes the next of the row's `images`.
- the_cauldron (nanoVLM): `images`, and `texts` [{"user", "assistant"}]; the images go first.
- A row of samples.parquet, or of a Hugging Face dataset in one of these formats.

`regions` [{"text", "x", "y"}] is ours: what stands where in the first image, for
`--objective align`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vtc.data.faults import RowFault
from vtc.data.pictures import Keep, path_of, refuse

__all__ = ["IMAGE", "RowFault", "check_turns", "parse_regions", "parse_row", "parse_turns"]

IMAGE = "<image>"

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}
_TEXT_PARTS = ("text", "input_text")
_IMAGE_PARTS = ("image", "image_url", "input_image")


def parse_row(row: Mapping[str, Any], default_id: str, keep: Keep = refuse) -> dict[str, Any]:
    """One row of a known format as a row of the samples table.

    `keep` takes the pictures that the row itself holds. Raises RowFault for what is no object, a
    row without conversations, with roles out of order, an empty turn, or other than one `<image>` a
    listed image.
    """
    if not isinstance(row, Mapping):
        raise RowFault("the row is no JSON object")
    images = _images(row)
    spoken = row.get("conversations")
    spoken = row.get("messages") if spoken is None else spoken
    if spoken is None and row.get("texts"):
        turns = _cauldron_turns(row["texts"], len(images))
    else:
        turns, images = _with_parts(spoken, images)
    turns = parse_turns(turns)
    check_turns(turns)
    _check_image_marks(turns, images)
    given = row.get("id", row.get("sample_id"))
    return {
        "sample_id": default_id if given in (None, "") else str(given),
        "images": [path_of(image, keep) for image in images],
        "conversations": turns,
        "regions": parse_regions(row.get("regions")),
        "n_text_tokens": row.get("n_text_tokens"),
    }


def parse_turns(conversations: Any) -> list[dict[str, str]]:
    """Turns as {role, text} in order, texts stripped; raises RowFault for anything else."""
    if not isinstance(conversations, Sequence) or isinstance(conversations, str):
        raise RowFault("no list of conversations (nor of messages or texts)")
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


def _with_parts(spoken: Any, images: list[Any]) -> tuple[Any, list[Any]]:
    """Turns whose parts have become texts with `<image>` marks, and the images in their order."""
    if not isinstance(spoken, Sequence) or isinstance(spoken, str):
        return spoken, images
    if not any(isinstance(t, Mapping) and isinstance(t.get("content"), list) for t in spoken):
        return spoken, images
    waiting = iter(images)
    named: list[Any] = []
    turns = []
    for turn in spoken:
        parts = turn.get("content") if isinstance(turn, Mapping) else None
        if isinstance(parts, list):
            turn = {**turn, "content": "".join(_part_texts(parts, images, waiting, named))}
        turns.append(turn)
    return turns, [*named, *waiting]


def _part_texts(
    parts: list[Any], images: list[Any], waiting: Iterator[Any], named: list[Any]
) -> Iterator[str]:
    """The text of each part; an image takes a line of its own, and is added to `named`."""
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
            yield part["text"]
        elif kind in _IMAGE_PARTS:
            source = next((part[key] for key in (*_IMAGE_PARTS, "url", "path") if part.get(key)), 0)
            index = part.get("index")
            if not source and isinstance(index, int) and 0 <= index < len(images):
                source = images[index]
                next(waiting, None)
            named.append(source or next(waiting, None))
            yield f"\n{IMAGE}\n"
        else:
            raise RowFault(f"a part of type '{kind}' is neither text nor image")


def _cauldron_turns(texts: Any, n_images: int) -> list[dict[str, Any]]:
    if not isinstance(texts, Sequence) or not all(isinstance(text, Mapping) for text in texts):
        raise RowFault("texts is no list of {user, assistant}")
    turns = []
    for text in texts:
        turns += [
            {"role": "user", "text": text.get("user")},
            {"role": "assistant", "text": text.get("assistant")},
        ]
    first = turns[0]["text"]
    if isinstance(first, str) and IMAGE not in first:
        turns[0]["text"] = "\n".join([*[IMAGE] * n_images, first])
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


def _images(row: Mapping[str, Any]) -> list[Any]:
    """The images a row lists, as it gives them."""
    given = row.get("image")
    given = row.get("images") if given is None else given
    if given is None or given == "":
        return []
    if isinstance(given, list | tuple):
        return list(given)
    return [given]


def _check_image_marks(turns: Sequence[Mapping[str, str]], images: Sequence[Any]) -> None:
    spoken_by_user = sum(turn["text"].count(IMAGE) for turn in turns if turn["role"] == "user")
    marks = sum(turn["text"].count(IMAGE) for turn in turns)
    if marks != spoken_by_user:
        raise RowFault(f"{IMAGE} stands outside the user's turns")
    if marks != len(images):
        raise RowFault(
            f"{marks} {IMAGE} mark{'s' * (marks != 1)} for {len(images)} "
            f"image{'s' * (len(images) != 1)}",
            images[0] if images and isinstance(images[0], str) else None,
        )
