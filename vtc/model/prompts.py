"""Many prompts read in batches; one image's prompts read what they share only once."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from vtc.model.backbones import module_dtype
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.processor import VtcProcessor
from vtc.model.query import read_texts
from vtc.model.reading import Reading, read
from vtc.model.repeating import repeated

Visual = Any
"""The image or images of a prompt: PIL images, or cached features [n_levels, N, D]."""

SHARED_TOKENS = 24
"""Tokens that sharing must spare a prompt: below, a second pass costs more than it saves."""


class Asked(NamedTuple):
    """A prompt's token ids, each image V of them, and the images it shows.

    `query` is what these are compressed for, where the compressor reads it.
    """

    ids: list[int]
    shown: tuple[Visual, ...]
    query: str | None = None


class _Group(NamedTuple):
    """Prompts that begin alike, images and all, up to token `length`."""

    length: int
    places: list[int]


def as_asked(
    processor: VtcProcessor,
    prompts: Sequence[str | Sequence[int]],
    visuals: Sequence[Visual | Sequence[Visual] | None],
    queries: Sequence[str | None] | None = None,
) -> list[Asked]:
    """Prompts (texts or token ids), what they show, and what images are compressed for.

    Raises ValueError if not as many of all.
    """
    asked = [None] * len(prompts) if queries is None else queries
    if not len(prompts) == len(visuals) == len(asked):
        raise ValueError(
            f"{len(prompts)} prompts, but {len(visuals)} visuals, {len(asked)} queries"
        )
    return [
        Asked(_token_ids(prompt, processor), _as_tuple(visual), query)
        for prompt, visual, query in zip(prompts, visuals, asked, strict=True)
    ]


def readings(
    model: VtcForConditionalGeneration,
    processor: VtcProcessor,
    asked: Sequence[Asked],
    batch_size: int,
) -> Iterator[tuple[list[int], Reading]]:
    """Read prompts, at most `batch_size` at a time; the places in `asked` of those just read.

    Long ones come first, and prompts of similar length together. Where several ask about the same
    images (the same objects), the LLM reads these once for all. A compressor that reads the
    question gives each other question other tokens: only equal ones then share them.

    Raises ValueError for a prompt with images whose compressor needs a `query`, and that has none.
    """
    vectors = _vectors(model, processor, asked, batch_size)
    groups = (
        _groups(asked, processor.image_token_id, model.compressor.needs_query)
        if _shares(model)
        else []
    )
    together = {place for group in groups for place in group.places}
    alone = [place for place in range(len(asked)) if place not in together]
    alone.sort(key=lambda place: len(asked[place].ids), reverse=True)
    padding = processor.tokenizer.pad_token_id or 0
    for start in range(0, len(alone), batch_size):
        places = alone[start : start + batch_size]
        inputs = _inputs(model, processor, [asked[place] for place in places], vectors)
        yield places, read(model, [asked[p].ids for p in places], inputs, padding=padding)
    for chunk in _chunks(groups, batch_size):
        firsts = [asked[group.places[0]] for group in chunk]
        inputs = _inputs(model, processor, firsts, vectors)
        length = chunk[0].length
        images = read(model, [first.ids[:length] for first in firsts], inputs)
        rows = [(row, place) for row, group in enumerate(chunk) for place in group.places]
        rows.sort(key=lambda pair: len(asked[pair[1]].ids), reverse=True)
        for start in range(0, len(rows), batch_size):
            some = rows[start : start + batch_size]
            before = images.of([row for row, _ in some])
            rests = [asked[place].ids[length:] for _, place in some]
            yield [place for _, place in some], read(model, rests, {}, before, padding)


@torch.inference_mode()
def compressed(
    model: VtcForConditionalGeneration,
    processor: VtcProcessor,
    asked: Sequence[Asked],
    batch_size: int,
) -> list[list[Tensor]]:
    """The tokens [V, width] that the LLM is fed of each prompt's images, of features, in order.

    Each image is compressed once, or once for each other question where the compressor reads it;
    at most `batch_size` at a time.

    Raises ValueError as `readings`.
    """
    vectors = _vectors(model, processor, asked, batch_size)
    reads = model.compressor.needs_query
    keys = [[(id(visual), one.query if reads else None) for visual in one.shown] for one in asked]
    distinct = {
        key: Asked([], (visual,), one.query)
        for one, own in zip(asked, keys, strict=True)
        for key, visual in zip(own, one.shown, strict=True)
    }
    tokens: dict[tuple, Tensor] = {}
    places = list(distinct)
    for start in range(0, len(places), batch_size):
        some = places[start : start + batch_size]
        inputs = _inputs(model, processor, [distinct[key] for key in some], vectors)
        made = model.model.compress(**inputs)  # type: ignore[operator]
        tokens.update(zip(some, repeated(made, model.config.repeat_visual_tokens), strict=True))
    return [[tokens[key] for key in own] for own in keys]


def _shares(model: VtcForConditionalGeneration) -> bool:
    """Whether rows of this LLM's cache can be shared: all of its layers attend to everything.

    Not where visual tokens are dropped in it by what each prompt looks at, and not where text is
    fused with the image, which it then needs.
    """
    if model.compressor.prunes or model.compressor.fuses:
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def _groups(asked: Sequence[Asked], image_token: int, asks: bool) -> list[_Group]:
    """Prompts with the same images, behind the same tokens, where sharing spares enough.

    Where the compressor `asks` for the question, that too must be the same.
    """
    found: dict[tuple, _Group] = {}
    for place, (ids, shown, query) in enumerate(asked):
        if not shown:
            continue
        length = len(ids) - ids[::-1].index(image_token)
        key = (tuple(ids[:length]), query if asks else None, *map(id, shown))
        found.setdefault(key, _Group(length, [])).places.append(place)
    worth = [group for group in found.values() if _spared(group) >= SHARED_TOKENS]
    longest = {id(group): max(len(asked[place].ids) for place in group.places) for group in worth}
    return sorted(worth, key=lambda group: (group.length, longest[id(group)]), reverse=True)


def _spared(group: _Group) -> float:
    """Tokens a prompt that are not read again."""
    return group.length * (1 - 1 / len(group.places))


def _chunks(groups: Sequence[_Group], batch_size: int) -> Iterator[list[_Group]]:
    """Groups of one length, whose prompts fill a batch; a larger group stands alone."""
    chunk: list[_Group] = []
    for group in groups:
        size = sum(len(other.places) for other in chunk) + len(group.places)
        if chunk and (size > batch_size or group.length != chunk[0].length):
            yield chunk
            chunk = []
        chunk.append(group)
    if chunk:
        yield chunk


@torch.inference_mode()
def _vectors(
    model: VtcForConditionalGeneration,
    processor: VtcProcessor,
    asked: Sequence[Asked],
    batch_size: int,
) -> dict[str, Tensor]:
    """The LLM's vector of each distinct question, where the compressor reads them."""
    if not model.compressor.needs_query:
        return {}
    queries = dict.fromkeys(one.query for one in asked if one.shown)
    if None in queries:
        raise ValueError(
            f"compressor {model.config.compressor} compresses an image for a question: give the "
            "queries of prompts with images"
        )
    texts = [query for query in queries if query is not None]
    found = processor.query_inputs(texts) if texts else {}
    rows = zip(*(part.tolist() for part in found.values()), strict=True)
    tokens = [tuple(t for t, own in zip(*row, strict=True) if own) for row in rows]
    read = read_texts(model.model.language_model, tokens, batch_size)  # type: ignore[arg-type]
    return dict(zip(texts, read, strict=True))


def _inputs(
    model: VtcForConditionalGeneration,
    processor: VtcProcessor,
    some: Sequence[Asked],
    vectors: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """What the model takes for the images of prompts, in order of appearance.

    With `vectors` of their questions, or where text is fused with them, each distinct object is
    there once.
    """
    shown = [visual for one in some for visual in one.shown]
    if not shown:
        return {}
    if vectors or model.compressor.fuses:
        distinct = {id(visual): visual for visual in shown}
        places = {key: number for number, key in enumerate(distinct)}
        which = torch.tensor([places[id(visual)] for visual in shown], device=model.device)
        asked = {"query_images": which}
        if vectors:
            queries = [vectors[one.query or ""] for one in some for _ in one.shown]
            asked["query_vectors"] = torch.stack(queries)
        return {**_images(model, processor, list(distinct.values())), **asked}
    return _images(model, processor, shown)


def _images(
    model: VtcForConditionalGeneration, processor: VtcProcessor, shown: Sequence[Visual]
) -> dict[str, Tensor]:
    if isinstance(shown[0], Tensor):
        return {"vision_levels": torch.stack(list(shown)).to(model.device)}
    pixels = processor.image_processor(list(shown), return_tensors="pt")["pixel_values"]
    return {"pixel_values": pixels.to(model.device, module_dtype(model))}


def _token_ids(prompt: str | Sequence[int], processor: VtcProcessor) -> list[int]:
    if not isinstance(prompt, str):
        return list(prompt)
    image = processor.image_token
    text = prompt.replace(image, image * processor.visual_tokens)
    return processor.tokenizer(text, add_special_tokens=False).input_ids


def _as_tuple(visual: Any) -> tuple[Visual, ...]:
    if visual is None:
        return ()
    return tuple(visual) if isinstance(visual, list | tuple) else (visual,)
