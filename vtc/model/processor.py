"""The processor of a vtc model: `<image>` in a text becomes V image tokens."""

from typing import Any

from transformers import AutoProcessor, ProcessorMixin

from vtc.model.config import VtcConfig

IMAGE_TOKEN = "<image>"


class VtcProcessor(ProcessorMixin):
    """Tokenizer and image processor; `visual_tokens` is the V that each `<image>` becomes."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        visual_tokens: int = 1,
        chat_template: str | None = None,
        image_token: str = IMAGE_TOKEN,
        **kwargs: Any,
    ) -> None:
        self.visual_tokens = visual_tokens
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        super().__init__(
            image_processor,
            tokenizer,
            chat_template=chat_template or tokenizer.chat_template,
            **kwargs,
        )

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """The text that stands for one image: V image tokens."""
        return self.image_token * self.visual_tokens


AutoProcessor.register(VtcConfig, VtcProcessor)
