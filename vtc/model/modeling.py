"""LLaVA with a token compressor, on transformers' own Llava classes."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForImageTextToText
from transformers.initialization import guard_torch_init_functions
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.llava.modeling_llava import (
    LlavaCausalLMOutputWithPast,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaModelOutputWithPast,
    LlavaPreTrainedModel,
)

from vtc.compress.choices import Grid, check_class_token, check_visual_tokens
from vtc.compress.interface import Compressor, VisionFeatures
from vtc.compress.registry import build
from vtc.errors import VtcError
from vtc.model.config import VtcConfig
from vtc.model.four_bit import KEPT, is_four_bit, settle
from vtc.model.fusing import fused_embeddings, read_images
from vtc.model.head_loss import head_loss, is_worth_it
from vtc.model.pruning import check_pruning, pruning
from vtc.model.query import INPUTS, query_vectors
from vtc.model.repeating import repeated
from vtc.model.tower import attention_layer, encode_states, grid_of

ASKED = (*INPUTS, "visual_tokens")
"""What a batch asks of the compressor: see `VtcModel.compress`."""


def build_compressor(config: VtcConfig) -> Compressor:
    """The compressor that a config names, with fresh weights.

    Raises InputError for a V, a level or a setting that the compressor does not support, and for
    one that needs a class token, which the encoder has not.
    """
    grid = grid_of(config.vision_config)
    visual_tokens = config.visual_tokens
    compressor = build(
        config.compressor,
        vision_width=config.vision_config.hidden_size,  # type: ignore[union-attr]
        text_width=config.text_config.hidden_size,  # type: ignore[union-attr]
        depth=config.vision_config.num_hidden_layers,  # type: ignore[union-attr]
        grid=grid,
        visual_tokens=grid[0] * grid[1] if visual_tokens is None else visual_tokens,
        settings=config.compressor_settings,
    )
    check_class_token(config.compressor, config.vision_feature_select_strategy == "default")
    check_pruning(compressor, config.text_config)
    return compressor


class VtcPreTrainedModel(LlavaPreTrainedModel):
    """What the two model classes share: initial weights, and the frozen encoder."""

    config: VtcConfig  # type: ignore[assignment]

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """transformers' rule for the backbones, the compressor's own for the compressor.

        Weights that a checkpoint has already filled stay as they are.
        """
        super().initialize_weights()
        with guard_torch_init_functions():
            self.compressor.reset_parameters()  # type: ignore[operator, union-attr]

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a saved model; the encoder comes back frozen if the config says so.

        A `quantization_config` of bitsandbytes reaches the LLM's linear layers alone.
        """
        asked: Any = kwargs.get("quantization_config")
        if hasattr(asked, "llm_int8_skip_modules"):
            asked.llm_int8_skip_modules = sorted({*(asked.llm_int8_skip_modules or ()), *KEPT})
        loaded = super().from_pretrained(*args, **kwargs)
        # transformers gives every loaded parameter a gradient again.
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        settle(model).freeze_vision()
        return loaded

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As transformers'; raises VtcError for a model in 4 bits, which has lost its weights."""
        if is_four_bit(self):
            raise VtcError(
                "a model in 4 bits is not saved whole; save its trained part, and make the whole "
                "model of it with 'vtc export RUN --merge'"
            )
        super().save_pretrained(*args, **kwargs)

    def freeze_vision(self) -> None:
        """Take the encoder out of training, if the config says so."""
        if self.config.freeze_vision:
            tower = next(m for m in self.modules() if isinstance(m, VtcModel)).vision_tower
            tower.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Any:
        """Switch to training mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        self.freeze_vision()
        return self


class VtcModel(VtcPreTrainedModel, LlavaModel):
    """LlavaModel whose projector is a compressor; also takes cached features for pixels."""

    def __init__(self, config: VtcConfig) -> None:
        # Past LlavaModel, whose own projector would be built only to be thrown away.
        super(LlavaModel, self).__init__(config)
        self.grid = grid_of(config.vision_config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.multi_modal_projector = build_compressor(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    @property
    def compressor(self) -> Compressor:
        """The compressor; it stands where LLaVA has its projector, under the same name."""
        return self.multi_modal_projector  # type: ignore[return-value]

    def encode(self, pixel_values: Float[Tensor, "I C H W"]) -> Float[Tensor, "I L T D"]:
        """The levels that the compressor asks for, of I images, in ascending order.

        T are the patches; also the class token, or merged patches, where it asks for them.
        """
        request = self.compressor.request
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_vision):
            return encode_states(
                self.vision_tower, pixel_values, request.levels, self.grid, request.tokens
            )

    def compress(
        self,
        vision_levels: Float[Tensor, "I L N D"],
        *,
        query_ids: Int[Tensor, "Q T"] | None = None,
        query_mask: Int[Tensor, "Q T"] | None = None,
        query_vectors: Float[Tensor, "Q text_width"] | None = None,
        query_images: Int[Tensor, " Q"] | None = None,
        visual_tokens: int | None = None,
    ) -> Float[Tensor, "P V text_width"]:
        """The visual tokens of I images from their L levels (those that the compressor asks for).

        Patches are the encoder's, or means of its windows where the compressor takes them. One
        that needs the question compresses for Q of them: their tokens `query_ids`, where the mask
        is not 0, or the LLM's `query_vectors` of them; `query_images` says which image each is
        about (default: the first about the first, and so on). There are then P = Q results, else
        P = I. An elastic one makes `visual_tokens` of an image (default: the V it serves). Raises
        ValueError if the number of levels or of patches is another, or a question is missing, and
        InputError for another V than the compressor can make.
        """
        features = self.features_of(vision_levels)
        if self.compressor.elastic:
            return self.compressor(features, visual_tokens)
        own = self.compressor.visual_tokens
        if visual_tokens is not None:
            check_visual_tokens(self.config.compressor, self.grid, visual_tokens, [own])
        if not self.compressor.needs_query:
            return self.compressor(features)
        if query_vectors is None:
            query_vectors = self.read_queries(query_ids, query_mask)
        if query_images is None and len(query_vectors) != len(vision_levels):
            raise ValueError(
                f"{len(query_vectors)} questions for {len(vision_levels)} images; query_images "
                "says which is about which"
            )
        dtype = next(self.compressor.parameters()).dtype
        features.query = query_vectors.to(vision_levels.device, dtype)
        features.asked = query_images
        return self.compressor(features)

    def features_of(self, vision_levels: Float[Tensor, "I L N D"]) -> VisionFeatures:
        """Levels of I images as the compressor takes them; raises ValueError as `compress`."""
        levels = self.compressor.request.levels
        if vision_levels.shape[1] != len(levels):
            raise ValueError(
                f"vision_levels of shape {tuple(vision_levels.shape)} do not fit: the compressor "
                f"asks for levels {levels}"
            )
        n_before = self._tokens_before(vision_levels.shape[2])
        grid = self.compressor.feature_grid(vision_levels.shape[2] - n_before)
        dtype = next(self.compressor.parameters()).dtype
        states = dict(zip(levels, vision_levels.to(dtype).unbind(1), strict=True))
        return self._features(states, grid, n_before)

    def _tokens_before(self, n_tokens: int) -> int:
        """How many of an image's features stand before its patches.

        Raises ValueError if the compressor asks for them, and they are not there.
        """
        if not self.compressor.request.tokens.class_token:
            return 0
        n_before = n_tokens - self.grid[0] * self.grid[1]
        if n_before < 1:
            raise ValueError(
                f"{n_tokens} features of an image have no class token, which compressor "
                f"{self.config.compressor} needs"
            )
        return n_before

    def _features(
        self, states: dict[int, Float[Tensor, "I T D"]], grid: Grid, n_before: int
    ) -> VisionFeatures:
        """States of I images, the first `n_before` tokens of which are no patches."""
        features = VisionFeatures(states, grid)
        if n_before:
            features.levels = {level: state[:, n_before:] for level, state in states.items()}
            features.before = {level: state[:, :n_before] for level, state in states.items()}
        number = self.compressor.request.attention
        if number is not None:
            features.attention = attention_layer(self.vision_tower, number)
        return features

    def read_queries(
        self, query_ids: Int[Tensor, "Q T"] | None, query_mask: Int[Tensor, "Q T"] | None = None
    ) -> Float[Tensor, "Q text_width"]:
        """The LLM's vectors of questions; raises ValueError if there are none."""
        if query_ids is None:
            raise ValueError(
                f"compressor {self.config.compressor} compresses an image for a question: pass "
                "query_ids and query_mask, as the processor makes them of query=[...], a text an "
                "image"
            )
        return query_vectors(self.language_model, query_ids, query_mask)

    def as_output(self, tokens: Float[Tensor, "I V text_width"]) -> BaseModelOutputWithPooling:
        """Visual tokens, repeated where the model does, as transformers passes outputs on."""
        fed = repeated(tokens, self.config.repeat_visual_tokens)
        return BaseModelOutputWithPooling(pooler_output=fed.unbind(0))  # type: ignore[arg-type]

    def look(
        self, vision_levels: Float[Tensor, "I L N D"], **asked: Any
    ) -> BaseModelOutputWithPooling:
        """What the LLM is fed of images, and what text is fused with where the compressor does."""
        if self.compressor.fuses:
            # It needs no query vector: a question given all the same is left, as by the others.
            own = {name: asked[name] for name in ("query_images", "visual_tokens") if name in asked}
            return read_images(self, vision_levels, **own)
        return self.as_output(self.compress(vision_levels, **asked))

    def get_image_features(  # type: ignore[override]
        self, pixel_values: Tensor, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """The visual tokens of images, one [V, text_width] an image in `pooler_output`."""
        asked = {name: kwargs[name] for name in ASKED if name in kwargs}
        return self.look(self.encode(pixel_values), **asked)

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        vision_levels: Float[Tensor, "I L N D"] | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> LlavaModelOutputWithPast:
        """As LlavaModel; `vision_levels` are cached features of I images in place of pixels.

        What else `compress` takes, of questions or V, goes on to it. Where the compressor fuses
        text, `fused_mask` [B, T] is 0 at tokens that are not fused: see `model.fusing`.
        """
        asked = {name: kwargs.pop(name) for name in ASKED if name in kwargs}
        if vision_levels is not None:
            if pixel_values is not None:
                raise ValueError("pass pixel_values or vision_levels, not both")
            mm_encoder_outputs = {"image": self.look(vision_levels, **asked)}
        elif pixel_values is not None and (asked or self.compressor.reads_text):
            mm_encoder_outputs = {"image": self.get_image_features(pixel_values, **asked)}
            pixel_values = None
        fused_mask = kwargs.pop("fused_mask", None)
        if mm_encoder_outputs and self.compressor.fuses:
            seen, mask = mm_encoder_outputs["image"], kwargs.get("attention_mask")
            embeds = fused_embeddings(self, input_ids, seen, mask, fused_mask)
            input_ids, mm_encoder_outputs, kwargs["inputs_embeds"] = None, None, embeds
        shows = pixel_values is not None or mm_encoder_outputs is not None
        with pruning(self, input_ids, kwargs.get("attention_mask"), shows):
            return super().forward(
                input_ids=input_ids,  # type: ignore[arg-type]
                pixel_values=pixel_values,
                mm_encoder_outputs=mm_encoder_outputs,
                **kwargs,
            )


class VtcForConditionalGeneration(VtcPreTrainedModel, LlavaForConditionalGeneration):
    """LlavaForConditionalGeneration with a compressor: `generate`, PEFT and Trainer as there."""

    @classmethod
    def from_pretrained(cls, source: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> Any:
        """Load a whole model, or a run that holds the small trained part of one.

        For the latter its backbones are found as the run's manifest says, and LoRA is merged as
        `model.run.load_run` does; of the other arguments none is looked at.
        """
        from vtc.model.run import is_part, load_run

        if is_part(source):
            return load_run(source, dtype=dtype or torch.float32).model
        if dtype is not None:
            kwargs["dtype"] = dtype
        return super().from_pretrained(source, *args, **kwargs)

    def __init__(self, config: VtcConfig) -> None:
        super(LlavaForConditionalGeneration, self).__init__(config)
        self.model = VtcModel(config)
        text_config: Any = config.text_config
        self.lm_head = nn.Linear(text_config.hidden_size, text_config.vocab_size, bias=False)
        self.post_init()
        self.freeze_vision()

    @property
    def compressor(self) -> Compressor:
        """The compressor."""
        return self.model.compressor  # type: ignore[return-value]

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        vision_levels: Float[Tensor, "I L N D"] | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> LlavaCausalLMOutputWithPast:
        """As LlavaForConditionalGeneration.

        `vision_levels` [n_images, n_levels, N, D] are cached features in place of `pixel_values`:
        the levels that the compressor asks for, ascending, images in order of appearance.

        A training step whose batch names its targets (`shift_labels`, one for each position of the
        mask `logits_to_keep`) and whose logits would be large has a loss and no logits.
        """
        targets = kwargs.get("shift_labels")
        if (
            targets is not None
            and self.training
            and torch.is_grad_enabled()
            and is_worth_it(self.lm_head, targets.numel())
        ):
            outputs = self.model(
                input_ids=input_ids,
                pixel_values=pixel_values,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                inputs_embeds=inputs_embeds,
                mm_encoder_outputs=mm_encoder_outputs,
                vision_levels=vision_levels,
                **kwargs,
            )
            states = slice_logits_to_keep(outputs[0], logits_to_keep).flatten(0, -2)
            n_items = kwargs.get("num_items_in_batch")
            loss = head_loss(states, self.lm_head.weight, targets.flatten(), n_items)
            return LlavaCausalLMOutputWithPast(loss=loss)  # type: ignore[arg-type]
        return super().forward(
            input_ids=input_ids,  # type: ignore[arg-type]
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,  # type: ignore[arg-type]
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,  # type: ignore[arg-type]
            logits_to_keep=logits_to_keep,
            mm_encoder_outputs=mm_encoder_outputs,
            vision_levels=vision_levels,  # type: ignore[call-arg]
            **kwargs,
        )

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self, inputs: Tensor | None = None, *, vision_levels: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """As transformers' `generate`; images are compressed once, before the prefill.

        `query_ids` and `query_mask` are the questions for a compressor that needs them,
        `visual_tokens` the V of an elastic one, of which the prompt then has as many image tokens.
        """
        core: Any = self.model
        asked = {name: kwargs.pop(name) for name in ASKED if name in kwargs}
        if vision_levels is not None:
            kwargs["mm_encoder_outputs"] = {"image": core.look(vision_levels, **asked)}
        elif kwargs.get("pixel_values") is not None and (asked or self.compressor.reads_text):
            tokens = core.get_image_features(kwargs.pop("pixel_values"), **asked)
            kwargs["mm_encoder_outputs"] = {"image": tokens}
        return super().generate(inputs, **kwargs)  # type: ignore[misc]


AutoModel.register(VtcConfig, VtcModel)
AutoModelForImageTextToText.register(VtcConfig, VtcForConditionalGeneration)
