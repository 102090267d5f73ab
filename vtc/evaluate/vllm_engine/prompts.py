"""Prompts as vLLM takes them: one image token an image, and the visual tokens beside them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vtc.errors import VtcError


class Chunk(NamedTuple):
    """Places of prompts that are asked together, and the distinct images that they show."""

    places: list[int]
    images: list[object]


def collapsed(ids: Sequence[int], image_token: int, visual_tokens: int, n_images: int) -> list[int]:
    """Token ids with one image token an image, where vtc has `visual_tokens` of them.

    Images may touch. Raises VtcError unless the image tokens are `n_images` times as many.
    """
    kept: list[int] = []
    run = 0
    for token in ids:
        if token != image_token:
            run = 0
        elif (run := run + 1) % visual_tokens != 1 % visual_tokens:
            continue
        kept.append(token)
    if (
        len(ids) - len(kept) != n_images * (visual_tokens - 1)
        or kept.count(image_token) != n_images
    ):
        raise VtcError(
            f"a prompt of {n_images} images has {list(ids).count(image_token)} image tokens, not "
            f"{visual_tokens} for each"
        )
    return kept


def expanded(ids: Sequence[int], image_token: int, visual_tokens: int) -> list[int]:
    """What vLLM makes of `collapsed` token ids: each image token as many times as its tokens."""
    return [token for one in ids for token in [one] * (visual_tokens if one == image_token else 1)]


def chunks(shown: Sequence[Sequence[object]], prompts: int, images: int) -> Iterator[Chunk]:
    """Prompts in their order, at most `prompts` and `images` distinct images at a time.

    `shown` holds the images of each prompt. A prompt that alone has more images stands alone.
    """
    places: list[int] = []
    distinct: dict[object, None] = {}
    for place, own in enumerate(shown):
        more = [image for image in dict.fromkeys(own) if image not in distinct]
        if places and (len(places) >= prompts or len(distinct) + len(more) > images):
            yield Chunk(places, list(distinct))
            places, distinct, more = [], {}, list(dict.fromkeys(own))
        places.append(place)
        distinct.update(dict.fromkeys(more))
    if places:
        yield Chunk(places, list(distinct))
