"""The processor of a vtc model: `<image>` in a text becomes V image tokens."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, ProcessorMixin

from vtc.data.chat_templates import give_template
from vtc.data.image_modes import ImageMode, with_mode
from vtc.data.image_places import QueryPosition
from vtc.data.queries import NO_QUESTION, QueryScope, QueryTokens, padded, words
from vtc.model.config import VtcConfig

IMAGE_TOKEN = "<image>"


class VtcProcessor(ProcessorMixin):
    """Tokenizer and image processor; `visual_tokens` is the V that each `<image>` becomes.

    Where the model repeats its visual tokens that counts them all.

    `query_position` says on which side of the image a question stands, in training and after it.
    `query_scope` says which questions images are compressed for; None where the compressor does
    not read them.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        visual_tokens: int = 1,
        chat_template: str | None = None,
        image_token: str = IMAGE_TOKEN,
        query_position: QueryPosition = "after",
        query_scope: QueryScope | None = None,
        **kwargs: Any,
    ) -> None:
        self.visual_tokens = visual_tokens
        self.query_scope: QueryScope | None = query_scope
        self.query_position: QueryPosition = query_position
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        super().__init__(
            image_processor,
            tokenizer,
            chat_template=chat_template or tokenizer.chat_template,
            **kwargs,
        )

    def __call__(
        self, images: Any = None, text: Any = None, *args: Any, query: Any = None, **kwargs: Any
    ) -> Any:
        """As ProcessorMixin; `query` is what images are compressed for, one text an image."""
        found = super().__call__(images, text, *args, **kwargs)
        if query is not None:
            found.update(self.query_inputs([query] if isinstance(query, str) else query))
        return found

    def query_inputs(self, questions: Sequence[str]) -> dict[str, Tensor]:
        """`query_ids` and `query_mask` [Q, T] of questions, which may have `<image>` marks."""
        tokens = QueryTokens(self.tokenizer)
        rows = [tokens.ids(words(text) or NO_QUESTION) for text in questions]
        ids, mask = padded(rows, self.tokenizer.pad_token_id or 0)
        return {"query_ids": torch.from_numpy(ids), "query_mask": torch.from_numpy(mask)}

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """The text that stands for one image: V image tokens."""
        return self.image_token * self.visual_tokens

    def set_up(
        self,
        image_mode: ImageMode | None = None,
        query_position: QueryPosition | None = None,
        chat_template: str | None = None,
        query_scope: QueryScope | None = None,
    ) -> None:
        """Change how images and prompts are made; None leaves a thing as it is.

        `chat_template` is a name or a file. Raises InputError for one that does not fit.
        """
        self.image_processor = with_mode(self.image_processor, image_mode)
        self.query_position = query_position or self.query_position
        if self.query_scope is not None:
            self.query_scope = query_scope or self.query_scope
        if chat_template is not None:
            # Models that share an LLM share its tokenizer too.
            self.tokenizer = copy.deepcopy(self.tokenizer)
            give_template(self.tokenizer, chat_template)
            self.chat_template = self.tokenizer.chat_template


AutoProcessor.register(VtcConfig, VtcProcessor)
