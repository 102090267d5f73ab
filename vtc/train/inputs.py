"""The inputs of a training, prepared once for all runs of a process: tokens and image features."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vtc.compress.choices import check_cacheable
from vtc.compress.interface import Tokens
from vtc.data.collate import Collator, ImageSource
from vtc.data.dataset import InMemory, TokenisedRow, tokenise
from vtc.data.features import FeatureStore, LevelReader, preprocessing_hash
from vtc.data.labels import TurnEncoder
from vtc.data.samples import Samples
from vtc.errors import InputError
from vtc.model.assemble import Assembled
from vtc.model.encode import MEMORY_LIMIT, image_bytes
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.repeating import entering
from vtc.model.sources import EncoderSource
from vtc.train.align import AlignCollator, align_rows
from vtc.train.image_sources import (
    CachedLevels,
    MemoryLevels,
    Pixels,
    SharedEncoder,
    encode_in_memory,
)
from vtc.train.relay import Relay
from vtc.train.settings import StageSettings

Say = Callable[[str], object]
ImageKey = tuple[str, str, Tokens, tuple[int, ...]]
"""The encoder's fingerprint, the hash of the preprocessing, which tokens, the levels."""


@dataclass
class Inputs:
    """Samples, and what has been made of them so far: tokens by tokenizer, features by encoder."""

    samples: Samples
    settings: StageSettings
    features: Path | None = None
    say: Say = lambda line: None
    _tokens: dict[str, InMemory[TokenisedRow]] = field(default_factory=dict)
    _images: dict[ImageKey, ImageSource] = field(default_factory=dict)
    _stores: dict[tuple, FeatureStore] = field(default_factory=dict)
    _expected: list[ImageKey] = field(default_factory=list)
    # Of those that train side by side alone, so a copy of these inputs has none.
    _shared: dict[ImageKey, ImageSource] = field(default_factory=dict, init=False)

    def lm_collator(
        self, model: VtcForConditionalGeneration, processor: Any, encoder: EncoderSource
    ) -> Collator:
        """Batches of tokenised conversations for this model; their order of images is the model's.

        Raises InputError for a sample without supervised tokens or a cache that does not fit.
        """
        return Collator(
            self.dataset(processor),
            entering(model),
            processor.tokenizer.pad_token_id,
            self.images(model, processor, encoder),
            max_questions=self.settings.max_questions,
            max_length=self.settings.max_length,
            seed=self.settings.order_seed,
            mask_dtype=next(model.model.language_model.parameters()).dtype,
            pack=self.settings.pack,
            marks_prompt=model.compressor.fuses,
        )

    def align_collator(
        self, model: VtcForConditionalGeneration, processor: Any, encoder: EncoderSource
    ) -> AlignCollator:
        """Batches of images and their regions' tokens for `--objective align`."""
        n_visual = model.compressor.visual_tokens
        tokenizer = processor.tokenizer
        rows = align_rows(self.samples.rows, tokenizer, n_visual, processor.query_scope)
        images = self.images(model, processor, encoder)
        return AlignCollator(InMemory(rows), images, n_visual, tokenizer.pad_token_id)

    def dataset(self, processor: Any) -> InMemory[TokenisedRow]:
        """All samples tokenised; models with equal tokenizers and prompts share it.

        Raises InputError for independent turns behind which the image would stand.
        """
        position = processor.query_position
        scope = processor.query_scope
        if position == "before" and self.settings.turns == "independent" and scope is None:
            raise InputError(
                "--turns independent shares the image before the questions; use --query-position "
                "after, or --turns dialogue"
            )
        key = _tokenizer_key(processor.tokenizer) + position + (scope or "")
        if key not in self._tokens:
            encoder = TurnEncoder(processor.tokenizer, self.settings.template, position)
            self._tokens[key] = tokenise(self.samples.rows, encoder, self.settings.turns, scope)
        return self._tokens[key]

    def images(
        self, model: VtcForConditionalGeneration, processor: Any, encoder: EncoderSource
    ) -> ImageSource:
        """Where this model's images come from: the cache, memory, or the files themselves."""
        key = _image_key(model, processor, encoder)
        if key not in self._images:
            self._images[key] = self._open_images(model, processor, encoder)
        source = self._shared.get(key, self._images[key])
        if isinstance(source, CachedLevels):
            _check_pooling(source.reader.store, model)
        return source

    def prepare(self, models: Sequence[Assembled]) -> None:
        """Open the images of several models with one encoder, before any of them trains.

        What each by itself would keep in memory comes of one pass over the images, at the levels
        that any of them asks for. Raises InputError for a cache that does not fit one of them.
        """
        asked = [(one.model, one.processor, one.encoder) for one in models]
        self.expect(_image_key(*ask) for ask in asked)
        for ask in asked:
            self.images(*ask)

    def expect(self, keys: Iterable[ImageKey]) -> None:
        """Tell of models that will ask for images: the first that does encodes for all of them.

        Of those with its encoder and preprocessing, that is, whose own levels fit in memory.
        """
        self._expected = list(keys)

    def share_encoder(self, models: Sequence[Assembled], relay: Relay) -> bool:
        """Let several models with one encoder read each batch of images from one pass of it.

        They must be trained in the turns of `relay`. False, and nothing is changed, where not two
        of them need the encoder: the features of the others are at hand as it is.
        """
        asked = [(one.model, one.processor, one.encoder) for one in models]
        live = [ask for ask in asked if isinstance(self.images(*ask), Pixels)]
        if len(live) < 2:
            return False
        by_tokens: dict[Tokens, list[ImageKey]] = {}
        for key in (_image_key(*ask) for ask in live):
            by_tokens.setdefault(key[2], []).append(key)
        for tokens, keys in by_tokens.items():
            pixels: Any = self._images[keys[0]]
            union = sorted({level for key in keys for level in key[-1]})
            shared = SharedEncoder(live[0][0], pixels, union, relay.pass_on, tokens)
            self._shared.update({key: shared.reader(key[-1]) for key in keys})
            self.say(f"each batch is encoded once for {len(keys)} runs: {tokens.words}")
        return True

    def _open_images(
        self,
        model: VtcForConditionalGeneration,
        processor: Any,
        encoder: EncoderSource,
    ) -> ImageSource:
        *who, levels = _image_key(model, processor, encoder)
        if self.features is not None:
            check_cacheable(model.config.compressor)
            return CachedLevels(self._open_cache(self.features, processor, encoder, levels))
        if self._kept_in_memory(model, len(levels)):
            alike = {
                key
                for key in self._expected
                if key[:-1] == tuple(who) and self._kept_in_memory(model, len(key[-1]))
            }
            union = sorted({*levels, *(level for key in alike for level in key[-1])})
            memory = self._keep(model, processor, union, model.compressor.request.tokens)
            self._images.update({key: memory.of(key[-1]) for key in alike - set(self._images)})
            return memory.of(levels)
        if self._paths:
            size = len(self._paths) * image_bytes(model, len(levels))
            self.say(
                f"features of {len(self._paths)} images take {size / 1e9:.1f} GB, too much to "
                "keep: the encoder runs at every step ('vtc encode' runs it once)"
            )
        return self._pixels(processor)

    @cached_property
    def _paths(self) -> list[str]:
        return sorted({path for sample in self.samples.rows for path in sample["images"]})

    def _kept_in_memory(self, model: VtcForConditionalGeneration, n_levels: int) -> bool:
        """Whether features of so many levels of this model's encoder are few enough to be kept."""
        n_images = len(self._paths) if self.features is None else 0
        size = n_images * image_bytes(model, n_levels)
        return 0 < size <= MEMORY_LIMIT

    def _keep(
        self,
        model: VtcForConditionalGeneration,
        processor: Any,
        levels: Sequence[int],
        tokens: Tokens,
    ) -> MemoryLevels:
        n_images, pixels = len(self._paths), self._pixels(processor)
        size = n_images * image_bytes(model, len(levels), tokens) / 1e6
        states = f"{len(levels)} state{'s' * (len(levels) != 1)}"
        self.say(
            f"encoding {n_images} images once: {tokens.words}, {states} of the encoder "
            f"({size:.1f} MB kept in memory)"
        )
        return encode_in_memory(model, pixels, self._paths, levels, tokens)

    def _pixels(self, processor: Any) -> Pixels:
        return Pixels(self.samples.image_root, processor.image_processor, self.samples.rows)

    def _open_cache(
        self, folder: Path, processor: Any, encoder: EncoderSource, levels: Sequence[int]
    ) -> LevelReader:
        key = (encoder.fingerprint, preprocessing_hash(processor.image_processor))
        if key not in self._stores:
            self._stores[key] = self._checked_store(folder, processor, encoder)
        return self._stores[key].reader(levels)

    def _checked_store(self, folder: Path, processor: Any, encoder: EncoderSource) -> FeatureStore:
        store = FeatureStore.open(folder)
        store.check(encoder.fingerprint, preprocessing_hash(processor.image_processor))
        made_from = store.manifest["image_root"]
        if Path(made_from) != self.samples.image_root:
            raise InputError(
                f"features {folder} are of images under {made_from}, the samples' stand under "
                f"{self.samples.image_root}; encode those, or give --images {made_from}"
            )
        images = {path: None for sample in self.samples.rows for path in sample["images"]}
        absent = next((path for path in images if path not in store), None)
        if absent is not None:
            raise InputError(f"features {folder} lack image {absent}; encode these samples along")
        store.check_images(self.samples.image_root, list(images))
        return store


def _image_key(
    model: VtcForConditionalGeneration, processor: Any, encoder: EncoderSource
) -> ImageKey:
    """What two models must have in common to read the same features."""
    preprocessing = preprocessing_hash(processor.image_processor)
    request = model.compressor.request
    return encoder.fingerprint, preprocessing, request.tokens, request.levels


def _check_pooling(store: FeatureStore, model: VtcForConditionalGeneration) -> None:
    """Raise InputError if a cache holds means of windows that this compressor cannot take."""
    rows, columns = store.layout.grid
    try:
        model.compressor.feature_grid(rows * columns)
    except ValueError:
        raise InputError(
            f"features {store.folder} are pooled to {rows}x{columns} patches, of which "
            f"{model.config.compressor} cannot make {model.compressor.visual_tokens} tokens; "
            "encode without --pool"
        ) from None


def _tokenizer_key(tokenizer: Any) -> str:
    """What tells two tokenizers apart: their rules, vocabulary and chat template."""
    rules = tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template)
    return hashlib.sha256(rules.encode()).hexdigest()
