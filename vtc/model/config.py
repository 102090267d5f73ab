"""The settings of a vtc model: LLaVA's, with a compressor in place of the projector."""

from typing import Any

from transformers import AutoConfig
from transformers.models.llava.configuration_llava import LlavaConfig


class VtcConfig(LlavaConfig):
    """LlavaConfig with a compressor.

    `compressor` is a name of vtc.compress.registry, `compressor_settings` its own settings,
    `visual_tokens` the tokens an image becomes (None: as many as patches), `repeat_visual_tokens`
    how often these are fed to the LLM, `freeze_vision` whether the encoder is kept frozen, in eval
    mode and without gradients.
    """

    model_type = "vtc"

    compressor: str = "mlp"
    compressor_settings: dict[str, Any] | None = None
    visual_tokens: int | None = None
    repeat_visual_tokens: int = 1
    freeze_vision: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.visual_tokens is not None:
            self.image_seq_length = self.visual_tokens * self.repeat_visual_tokens


AutoConfig.register("vtc", VtcConfig)
