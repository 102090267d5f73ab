"""What `--dry-run` of `vtc eval` says: what would be asked, where it goes, and what it costs."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Sitting(NamedTuple):
    """A run at one V, its weights not loaded: shapes, the compressor's own costs, its prompts."""

    run_id: str
    visual_tokens: int
    repeats: int
    passes: tuple
    weights: Path
    llm: Any
    encoder: Any
    compressor: Any
    processor: Any
    dropping: Any


class Prefill(NamedTuple):
    """FLOPs of an exam for a sitting, and its longest prompt: text tokens, and visual ones."""

    prefill: float
    compressor: float
    decode: float
    text_tokens: int
    visual_tokens: int


def report(
    folders: Sequence[Path],
    exams: Sequence[Any],
    how: Any,
    facts: dict[str, Any],
    outputs: Sequence[str],
) -> Iterator[str]:
    """Lines `name = value`: settings, benchmarks, outputs, and an estimate a run and benchmark.

    `how` is the runner's settings, `facts` others to name. Raises InputError as an evaluation
    would for runs, models and questions that cannot be.
    """
    from vtc.evaluate.runner import identity, options_of
    from vtc.tables.quantity import format_flops

    identity(folders, exams, how)
    for exam in exams:
        options_of(exam, how.answer_by)
    sittings = [one for folder in folders for one in sittings_of(folder, how)]
    costs = [[cost(sitting, exam, how) for exam in exams] for sitting in sittings]
    for name, value in {**how.described(), "workers": how.workers, **facts}.items():
        yield f"{name} = {value}"
    for exam in exams:
        yield f"benchmark = {_described(exam)}"
    for out in outputs:
        yield f"output = {out}{_state(Path(out))}"
    for sitting, own in zip(sittings, costs, strict=True):
        for exam, found in zip(exams, own, strict=True):
            yield (
                f"estimate = {sitting.run_id} at V = {_fed(sitting)} on "
                f"{exam.benchmark.name}: prompts of up to {found.text_tokens} text and "
                f"{found.visual_tokens} visual tokens, prefill {format_flops(found.prefill)} "
                f"({format_flops(found.prefill / len(exam.items))} an item), compressor "
                f"{format_flops(found.compressor)}, decoding at most {format_flops(found.decode)}"
            )
    n_images, seen = seeing(sittings, exams, how)
    each = [found for own in costs for found in own]
    whole = sum(seen) + sum(sum(found[:2]) for found in each)
    most = whole + sum(found.decode for found in each)
    yield (
        f"estimate = in all: {format_flops(whole)} before the first words of the answers, at most "
        f"{format_flops(most)} with them; the encoder's share {format_flops(sum(seen))} "
        f"({len(seen)} pass{'es' * (len(seen) != 1)} over {n_images} images)"
    )


def sittings_of(folder: Path, how: Any) -> list[Sitting]:
    """A run as its configs have it, at each V that it is to answer at.

    Raises InputError if it, or what it stands on, is not there, and for a V that it cannot serve.
    """
    from vtc.compress.serving import check_served, repeats_of
    from vtc.model.manifest import read_manifest

    manifest = read_manifest(folder)
    turns = how.served(manifest)
    for v in turns:
        check_served(folder, manifest, v)
    repeats = how.repeat_visual_tokens or repeats_of(manifest)
    return [_sitting(folder, v, repeats) for v in turns]


def _fed(sitting: Sitting) -> str:
    """V, and how often it is fed where that is more than once, or how much of it a layer has."""
    if sitting.dropping is not None:
        return f"{sitting.visual_tokens} (a layer {sitting.dropping.mean:.1f} on average)"
    repeats = f" x {sitting.repeats}" if sitting.repeats > 1 else ""
    return f"{sitting.visual_tokens}{repeats}"


def _sitting(folder: Path, visual_tokens: int, repeats: int) -> Sitting:
    from vtc.catalog.shapes import encoder_from_config, llm_from_config
    from vtc.commands.dropping import dropping_of
    from vtc.compress.registry import shape_arguments
    from vtc.compress.statement import statement
    from vtc.evaluate.vision import sight_of
    from vtc.model.manifest import read_manifest, run_folder
    from vtc.model.processor import VtcProcessor
    from vtc.model.refit import origin
    from vtc.model.run import check_speaks
    from vtc.model.sources import locate

    check_speaks(folder)
    manifest, place = read_manifest(folder), run_folder(folder)
    if manifest["weights"] != "full":
        for part in ("encoder", "llm"):
            locate(manifest["base"] if manifest.get("base") else manifest[part], place)
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    llm = llm_from_config(config["text_config"], f"run {folder}")
    encoder = encoder_from_config(config["vision_config"], f"run {folder}")
    stated = statement(
        manifest["compressor"],
        **shape_arguments(encoder, llm.hidden_size),
        visual_tokens=visual_tokens,
        settings=config.get("compressor_settings"),
    )
    return Sitting(
        manifest["run_id"],
        visual_tokens,
        repeats,
        sight_of(folder).passes,
        origin(folder),
        llm,
        encoder,
        stated,
        VtcProcessor.from_pretrained(place),
        dropping_of(
            manifest["compressor"],
            llm,
            encoder.n_patches,
            None,
            config.get("compressor_settings"),
        ),
    )


def cost(sitting: Sitting, exam: Any, how: Any) -> Prefill:
    """What an exam costs a sitting: causal attention, nothing shared between questions.

    What `eval` spares by reading an image once for its questions is not taken off.
    """
    from vtc.cost import dropping as pruned
    from vtc.cost.llm import decode_flops, prefill_flops
    from vtc.cost.query import query_flops
    from vtc.evaluate.answering import LIKELIHOOD
    from vtc.evaluate.prompts import tokenise

    processor, llm = sitting.processor, sitting.llm
    fed = sitting.visual_tokens * sitting.repeats
    prompts = tokenise(exam.items, processor.tokenizer, 1, processor.query_position)
    counts = Counter(
        (prompt.n_text_tokens, fed * len(item.images))
        for prompt, item in zip(prompts, exam.items, strict=True)
    )
    written = 1 if how.answer_by == LIKELIHOOD else exam.benchmark.max_new_tokens
    decode = prefill = 0.0
    for (text, visual), n_items in counts.items():
        if sitting.dropping is None or not visual:
            prefill += n_items * prefill_flops(llm, text + visual, attention="causal")
            decode += n_items * decode_flops(llm, written, text + visual)
        else:
            own = sitting.dropping, text, visual // fed
            prefill += n_items * pruned.prefill_flops(llm, *own, attention="causal")
            decode += n_items * pruned.decode_flops(llm, own[0], written, *own[1:])
    if sitting.compressor.needs_query:
        # An image is compressed for each question about it; each distinct one is read once.
        n_images = sum(len(item.images) for item in exam.items)
        queries = {p.query for p, item in zip(prompts, exam.items, strict=True) if item.images}
        lengths = Counter(len(processor.tokenizer(query).input_ids) for query in queries)
        reading = sum(n * query_flops(llm, length) for length, n in lengths.items())
    else:
        n_images, reading = len(_images(exam)), 0.0
    if any(sitting.compressor.text_flops):
        # Text is fused with the image for each question; see `compress.fusing`.
        n_images = sum(len(item.images) for item in exam.items)
        a_token, a_pair = sitting.compressor.text_flops
        shown = [(text, n) for (text, visual), n in counts.items() if visual]
        reading = float(sum(n * (a_token * text + a_pair * text**2) for text, n in shown))
    return Prefill(
        prefill,
        n_images * sitting.compressor.flops + reading,
        decode,
        max(text for text, _ in counts),
        max(visual for _, visual in counts),
    )


def seeing(sittings: Sequence[Sitting], exams: Sequence[Any], how: Any) -> tuple[int, list[float]]:
    """How many images no feature cache holds, and the FLOPs of each of the encoders' passes.

    Runs share a pass where its features are kept from one to the next: see `evaluate.foreseen`.
    """
    from vtc.cost.encoder import encoder_flops
    from vtc.data.features import FeatureStore
    from vtc.evaluate.foreseen import Seer, encoded_images

    images = {image for exam in exams for image in _images(exam)}
    cached = set()
    if how.features:
        store = FeatureStore.open(how.features)
        root = Path(store.manifest["image_root"]).resolve()
        cached = {i for i in images if i[0].resolve() == root and i[1] in store}
    deepest: dict[tuple, float] = {}
    levels: dict[tuple, set[int]] = {}
    for sitting in sittings:
        own, passes = sitting.compressor, sitting.passes
        levels.setdefault(passes, set()).update(own.levels)
        flops = encoder_flops(sitting.encoder, max(own.levels, default=0), own.patches_left)
        deepest[passes] = max(deepest.get(passes, 0.0), float(flops))
    seers = []
    for sitting in sittings:
        kept = (sitting.compressor.patches_left or (sitting.encoder.n_patches,))[-1]
        size = len(levels[sitting.passes]) * kept * sitting.encoder.hidden_size
        seers.append(Seer(sitting.weights, sitting.passes, size * how.dtype.itemsize))
    shown = [own for exam in exams for own in exam.images()]
    absent = {image for exam in exams for image in _absent(exam)}
    counts = encoded_images(seers, shown, frozenset(cached), frozenset(absent))
    left = len(images) - len(cached)
    # Each is of all images that are left, once or several times.
    repeats = {passes: count // left if left else 1 for passes, count in counts.items()}
    return left, [deepest[p] * left for p, times in repeats.items() for _ in range(times)]


def _images(exam: Any) -> set[tuple[Path, str]]:
    return {image for own in exam.images() for image in own}


def _absent(exam: Any) -> set[tuple[Path, str]]:
    """Images of an exam that are no files; none of those that stand in its rows."""
    if exam.benchmark.holds_pictures:
        return set()
    return {(root, name) for root, name in _images(exam) if not (root / name).is_file()}


def _described(exam: Any) -> str:
    images, lacking = _images(exam), len(_absent(exam))
    held = exam.benchmark.holds_pictures
    found = _count(images, "image") + (f" ({lacking} of them not there)" if lacking else "")
    place = "in its rows" if held else f"under {exam.benchmark.images.resolve()}"
    return (
        f"{exam.benchmark.name}: {_count(exam.items, 'item')}, {found} {place}, answers of up to "
        f"{exam.benchmark.max_new_tokens} tokens, chance {exam.chance:.4g}"
    )


def _count(things: Collection[Any], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _state(out: Path) -> str:
    from vtc.evaluate.answered import is_left

    if is_left(out):
        return " (stopped; go on with --resume)"
    return " (exists)" if out.exists() else ""
