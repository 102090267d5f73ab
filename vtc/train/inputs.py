"""The inputs of a training, prepared once for all runs of a process: tokens and image features."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtc.data.collate import Collator, ImageSource
from vtc.data.dataset import InMemory, TokenisedRow, tokenise
from vtc.data.features import FeatureStore, LevelReader, preprocessing_hash
from vtc.data.labels import TurnEncoder
from vtc.data.samples import Samples
from vtc.errors import InputError
from vtc.model.assemble import Assembled
from vtc.model.encode import MEMORY_LIMIT, image_bytes
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.sources import EncoderSource
from vtc.train.align import AlignCollator, align_rows
from vtc.train.image_sources import CachedLevels, Pixels, SharedEncoder, encode_in_memory
from vtc.train.relay import Relay
from vtc.train.settings import StageSettings

Say = Callable[[str], object]


@dataclass
class Inputs:
    """Samples, and what has been made of them so far: tokens by tokenizer, features by encoder."""

    samples: Samples
    settings: StageSettings
    features: Path | None = None
    say: Say = lambda line: None
    _tokens: dict[str, InMemory[TokenisedRow]] = field(default_factory=dict)
    _images: dict[tuple, ImageSource] = field(default_factory=dict)

    def lm_collator(
        self, model: VtcForConditionalGeneration, processor: Any, encoder: EncoderSource
    ) -> Collator:
        """Batches of tokenised conversations for this model; their order of images is the model's.

        Raises InputError for a sample without supervised tokens or a cache that does not fit.
        """
        return Collator(
            self.dataset(processor),
            model.compressor.visual_tokens,
            processor.tokenizer.pad_token_id,
            self.images(model, processor, encoder),
            max_questions=self.settings.max_questions,
            max_length=self.settings.max_length,
            seed=self.settings.seed,
            mask_dtype=next(model.model.language_model.parameters()).dtype,
        )

    def align_collator(
        self, model: VtcForConditionalGeneration, processor: Any, encoder: EncoderSource
    ) -> AlignCollator:
        """Batches of images and their regions' tokens for `--objective align`."""
        n_visual = model.compressor.visual_tokens
        rows = align_rows(self.samples.rows, processor.tokenizer, n_visual)
        return AlignCollator(InMemory(rows), self.images(model, processor, encoder), n_visual)

    def dataset(self, processor: Any) -> InMemory[TokenisedRow]:
        """All samples tokenised; models with equal tokenizers and prompts share it.

        Raises InputError for independent turns behind which the image would stand.
        """
        position = processor.query_position
        if position == "before" and self.settings.turns == "independent":
            raise InputError(
                "--turns independent shares the image before the questions; use --query-position "
                "after, or --turns dialogue"
            )
        key = _tokenizer_key(processor.tokenizer) + position
        if key not in self._tokens:
            encoder = TurnEncoder(processor.tokenizer, self.settings.template, position)
            self._tokens[key] = tokenise(self.samples.rows, encoder, self.settings.turns)
        return self._tokens[key]

    def images(
        self, model: VtcForConditionalGeneration, processor: Any, encoder: EncoderSource
    ) -> ImageSource:
        """Where this model's images come from: the cache, memory, or the files themselves."""
        key = _image_key(model, processor, encoder)
        if key not in self._images:
            self._images[key] = self._open_images(model, processor, encoder, key[-1])
        source = self._images[key]
        if isinstance(source, CachedLevels):
            _check_pooling(source.reader.store, model)
        return source

    def share_encoder(self, models: Sequence[Assembled], relay: Relay) -> bool:
        """Let several models with one encoder read each batch of images from one pass of it.

        They must be trained in the turns of `relay`. False, and nothing is changed, where the
        features are at hand as it is, or there is but one model.
        """
        asked = [(one.model, one.processor, one.encoder) for one in models]
        sources = [self.images(*ask) for ask in asked]
        if len(models) < 2 or not all(isinstance(source, Pixels) for source in sources):
            return False
        levels = [one.model.compressor.request.levels for one in models]
        union = sorted({level for some in levels for level in some})
        pixels: Any = sources[0]
        shared = SharedEncoder(models[0].model, pixels, union, relay.pass_on)
        for ask, some in zip(asked, levels, strict=True):
            self._images[_image_key(*ask)] = shared.reader(some)
        self.say(f"each batch is encoded once for {len(models)} runs")
        return True

    def _open_images(
        self,
        model: VtcForConditionalGeneration,
        processor: Any,
        encoder: EncoderSource,
        levels: Sequence[int],
    ) -> ImageSource:
        paths = {path for sample in self.samples.rows for path in sample["images"]}
        if self.features is not None:
            return CachedLevels(self._open_cache(self.features, processor, encoder, levels))
        pixels = Pixels(self.samples.image_root, processor.image_processor)
        if not paths:
            return pixels
        size = len(paths) * image_bytes(model, len(levels))
        if size > MEMORY_LIMIT:
            self.say(
                f"features of {len(paths)} images take {size / 1e9:.1f} GB, too much to keep: the "
                "encoder runs at every step ('vtc encode' runs it once)"
            )
            return pixels
        self.say(f"encoding {len(paths)} images once ({size / 1e6:.1f} MB kept in memory)")
        return encode_in_memory(model, pixels, sorted(paths))

    def _open_cache(
        self, folder: Path, processor: Any, encoder: EncoderSource, levels: Sequence[int]
    ) -> LevelReader:
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
        return store.reader(levels)


def _image_key(model: VtcForConditionalGeneration, processor: Any, encoder: EncoderSource) -> tuple:
    """What two models must have in common to read the same features."""
    preprocessing = preprocessing_hash(processor.image_processor)
    return encoder.fingerprint, preprocessing, model.compressor.request.levels


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
