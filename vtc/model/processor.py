"""The processor of a vtc model: `<image>` in a text becomes V image tokens."""

import copy
from typing import Any

from transformers import AutoProcessor, ProcessorMixin

from vtc.data.chat_templates import give_template
from vtc.data.image_modes import ImageMode, with_mode
from vtc.data.image_places import QueryPosition
from vtc.model.config import VtcConfig

IMAGE_TOKEN = "<image>"


class VtcProcessor(ProcessorMixin):
    """Tokenizer and image processor; `visual_tokens` is the V that each `<image>` becomes.

    `query_position` says on which side of the image a question stands, in training and after it.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        visual_tokens: int = 1,
        chat_template: str | None = None,
        image_token: str = IMAGE_TOKEN,
        query_position: QueryPosition = "after",
        **kwargs: Any,
    ) -> None:
        self.visual_tokens = visual_tokens
        self.query_position: QueryPosition = query_position
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

    def set_up(
        self,
        image_mode: ImageMode | None = None,
        query_position: QueryPosition | None = None,
        chat_template: str | None = None,
    ) -> None:
        """Change how images and prompts are made; None leaves a thing as it is.

        `chat_template` is a name or a file. Raises InputError for one that does not fit.
        """
        self.image_processor = with_mode(self.image_processor, image_mode)
        self.query_position = query_position or self.query_position
        if chat_template is not None:
            # Models that share an LLM share its tokenizer too.
            self.tokenizer = copy.deepcopy(self.tokenizer)
            give_template(self.tokenizer, chat_template)
            self.chat_template = self.tokenizer.chat_template


AutoProcessor.register(VtcConfig, VtcProcessor)
