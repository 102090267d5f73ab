"""The frozen encoder's pass over a benchmark's images, shared between runs that have it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vtc.compress.interface import PATCHES, FeatureRequest, Tokens
from vtc.data.features import FeatureStore, preprocessing_hash
from vtc.errors import InputError
from vtc.evaluate.decoding import Decoded, Image, decoded
from vtc.model.backbones import load_image_processor
from vtc.model.config import VtcConfig
from vtc.model.encode import MEMORY_LIMIT, image_bytes
from vtc.model.manifest import run_folder
from vtc.model.modeling import build_compressor
from vtc.model.refit import origin
from vtc.model.run import Run, read_manifest
from vtc.model.tower import encode_states


class Block(NamedTuple):
    """Images seen together; the items without an image belong to the first block."""

    images: list[Image]
    first: bool


@dataclass(frozen=True)
class Visible:
    """Features of images [n_images, n_levels, N, D], and why the others could not be opened."""

    levels: tuple[int, ...]
    rows: dict[Image, int]
    features: Tensor
    faults: dict[Image, str]
    tokens: Tokens = PATCHES

    def of(self, sight: "Sight") -> dict[Image, Tensor]:
        """What a run wants of each image, [n_levels, T, D]: views where it wants all levels."""
        picked = [self.levels.index(level) for level in sight.levels]
        whole = picked == list(range(len(self.levels)))
        part = self.features if whole else self.features[:, picked]
        if self.tokens.class_token and not sight.tokens.class_token:
            part = part[:, :, part.shape[2] - sight.n_patches :]
        return {image: part[row] for image, row in self.rows.items()}


@dataclass(frozen=True)
class Sight:
    """What a run needs of an encoder: which one, on images made how, and which of its levels."""

    encoder: str
    levels: tuple[int, ...]
    tokens: Tokens = PATCHES
    n_patches: int = 0

    @property
    def passes(self) -> tuple:
        """What runs that share the encoder's pass agree on: the encoder, and how it merges."""
        return self.encoder, self.tokens._replace(class_token=False)


def sight_of(folder: Path) -> Sight:
    """A run's encoder and levels, read from its configs without loading weights.

    Raises InputError if the folder is no finished run.
    """
    manifest = read_manifest(folder)
    config = VtcConfig.from_pretrained(run_folder(folder))
    with torch.device("meta"):
        compressor = build_compressor(config)
    # An encoder that was trained along is the run's own, and of those that show its weights.
    own = "" if config.freeze_vision else str(origin(folder))
    own += preprocessing_hash(load_image_processor(folder))
    request, (rows, columns) = compressor.request, compressor.grid
    encoder = manifest["encoder"]["fingerprint"] + own
    return Sight(encoder, request.levels, request.tokens, rows * columns)


def union(sights: Iterable[Sight]) -> FeatureRequest:
    """All levels that any of several runs needs, ascending, and the class token if any does.

    They agree on `passes`.
    """
    together = list(sights)
    levels = tuple(sorted({level for sight in together for level in sight.levels}))
    with_class = any(sight.tokens.class_token for sight in together)
    return FeatureRequest(levels, together[0].tokens._replace(class_token=with_class))


def looks_of(
    sights: Iterable[Sight],
    batch_size: int,
    track: Callable[[str, int], Any],
    store: FeatureStore | None = None,
    workers: int = 0,
    begun: bool = False,
) -> dict[tuple, "Look"]:
    """A look for each of the `passes` of runs that have one encoder."""
    by_passes: dict[tuple, list[Sight]] = {}
    for sight in sights:
        by_passes.setdefault(sight.passes, []).append(sight)
    looks: list[Look] = []
    for together in by_passes.values():
        looks.append(Look(union(together), batch_size, track, store, workers, begun, looks))
    return dict(zip(by_passes, looks, strict=True))


def connected(groups: Iterable[Sequence[Image]]) -> list[list[Image]]:
    """The distinct images, in order of appearance, those that any group shows together in a list.

    Groups are joined where they share an image, so that each image stands in one list.
    """
    place: dict[Image, list[Image]] = {}
    for group in groups:
        lists = {id(place[image]): place[image] for image in group if image in place}
        together = max(lists.values(), key=len, default=[])
        for other in [found for found in lists.values() if found is not together]:
            together += other
            place.update(dict.fromkeys(other, together))
        for image in group:
            if image not in place:
                together.append(image)
                place[image] = together
    return list({id(found): found for found in place.values()}.values())


def blocks_of(groups: Iterable[Sequence[Image]], image_bytes: int) -> list[list[Image]]:
    """The distinct images in blocks whose features fit in memory; at least one block.

    Images that a group shows together are in one block.
    """
    size = max(1, MEMORY_LIMIT // image_bytes)
    blocks: list[list[Image]] = [[]]
    for together in connected(groups):
        if blocks[-1] and len(blocks[-1]) + len(together) > size:
            blocks.append([])
        blocks[-1] += together
    return blocks


class Look:
    """The encoder's pass over images, in blocks; the last block is kept for the next run.

    Looks of one encoder stand `beside` one another: what they keep fits in memory together.
    """

    def __init__(
        self,
        request: FeatureRequest,
        batch_size: int,
        track: Callable[[str, int], Any],
        store: FeatureStore | None = None,
        workers: int = 0,
        begun: bool = False,
        beside: Sequence["Look"] = (),
    ):
        """`begun`: some images were seen before, so that all of those left may be bad."""
        self.beside = beside
        self.levels, self.tokens = request.levels, request.tokens
        self.batch_size = batch_size
        self.track = track
        self.store = store
        self.workers = workers
        self.begun = begun
        self._block: Sequence[Image] | None = None
        self._seen: Visible | None = None

    def blocks(self, run: Run, images: Sequence[Sequence[tuple[Image, ...]]]) -> list[Block]:
        """All distinct images, in blocks whose features fit in memory (at least one block).

        `images` holds those of each item of each exam; all images of an item are in one block.
        """
        blocks = blocks_of((shown for some in images for shown in some), self._image_bytes(run))
        return [Block(block, number == 0) for number, block in enumerate(blocks)]

    def at(self, run: Run, where: Block) -> Visible:
        """The features of a block: those at hand if it was the last one, else from the encoder.

        Raises InputError if the block has images and not one opens: the root must be wrong.
        """
        block = where.images
        if self._seen is None or self._block != block:
            images = block
            self._make_room(run, len(images))
            kept = self._in_store(run, images)
            fresh = [image for image in images if image not in set(kept)]
            with self.track("encoding images", len(fresh)) as advance:
                ahead = decoded(fresh, self.batch_size, run.processor.image_processor, self.workers)
                seen = _encode(run, ahead, self.levels, self.tokens, advance)
            self._seen = self._with_stored(seen, kept, run) if kept else seen
            self._block = block
            if images and not self._seen.rows and not self.begun:
                raise InputError(
                    f"not one of {len(images)} images opens under {images[0][0]}; "
                    f"{self._seen.faults[images[0]]}: name their root with --images, or 'images' "
                    "in a TOML file"
                )
            # A later block may be of bad images alone: the root is right.
            self.begun = self.begun or bool(self._seen.rows)
        return self._seen

    def forget(self) -> None:
        """Keep no block."""
        self._block = self._seen = None

    @property
    def kept_bytes(self) -> int:
        """Bytes of the features that are kept."""
        return 0 if self._seen is None else self._seen.features.nbytes

    def _image_bytes(self, run: Run) -> int:
        """Bytes of one image's features."""
        return image_bytes(run.model, len(self.levels), self.tokens)

    def _make_room(self, run: Run, n_images: int) -> None:
        """Let go of the last block, and of those beside it unless all fit."""
        self.forget()
        others = sum(look.kept_bytes for look in self.beside)
        if others + n_images * self._image_bytes(run) > MEMORY_LIMIT:
            for look in self.beside:
                look.forget()

    def _in_store(self, run: Run, images: Sequence[Image]) -> list[Image]:
        """Those images whose features the cache holds; raises InputError if it is not the run's."""
        if self.store is None:
            return []
        preprocessing = preprocessing_hash(run.processor.image_processor)
        self.store.check(run.manifest["encoder"]["fingerprint"], preprocessing)
        if self.tokens != PATCHES:
            raise InputError(
                f"features {self.store.folder} hold patches alone, and the compressor of run "
                f"{run.folder} or one beside it reads more (the class token, or merged patches); "
                "evaluate without --features"
            )
        if self.store.layout.pooled:
            raise InputError(
                f"features {self.store.folder} are pooled, for training alone; evaluate without "
                "--features"
            )
        root = Path(self.store.manifest["image_root"]).resolve()
        kept = [image for image in images if image[0].resolve() == root and image[1] in self.store]
        self.store.check_images(root, [path for _, path in kept])
        return kept

    def _with_stored(self, seen: Visible, kept: Sequence[Image], run: Run) -> Visible:
        """What the encoder gave, and behind it the features of the images in the cache."""
        assert self.store is not None
        weight = next(run.model.model.vision_tower.parameters())
        stored = self.store.reader(self.levels)([path for _, path in kept])
        parts = [seen.features] if seen.rows else []
        features = torch.cat([*parts, stored.to(weight.device, weight.dtype)])
        rows = {image: number for number, image in enumerate(kept, start=len(seen.rows))}
        return Visible(self.levels, {**seen.rows, **rows}, features, seen.faults)


@torch.inference_mode()
def _encode(
    run: Run,
    batches: Iterable[Decoded],
    levels: tuple[int, ...],
    tokens: Tokens,
    advance: Callable[[int], object],
) -> Visible:
    """Encode images with a run's encoder, at `levels`; those that did not open become faults."""
    model: Any = run.model.model
    weight = next(model.vision_tower.parameters())
    rows: dict[Image, int] = {}
    faults: dict[Image, str] = {}
    parts = []
    for batch in batches:
        faults.update(batch.faults)
        if batch.pixels is not None:
            values = batch.pixels.to(weight.device, weight.dtype)
            parts.append(encode_states(model.vision_tower, values, levels, model.grid, tokens))
            rows.update({image: number for number, image in enumerate(batch.images, len(rows))})
        advance(len(batch.images) + len(batch.faults))
    features = torch.cat(parts) if parts else torch.empty(0, len(levels), 0, 0)
    return Visible(levels, rows, features, faults, tokens)
