"""Items as token ids: through the chat template, exactly as training saw questions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vtc.data.conversations import IMAGE
from vtc.data.labels import expand_images, image_token_id
from vtc.data.templates import ConversationTemplate
from vtc.evaluate.items import Item


class Prompt(NamedTuple):
    """Token ids of a prompt, its image as V image tokens, and how many of them are text."""

    ids: list[int]
    n_text_tokens: int


def tokenise(items: Sequence[Item], tokenizer: Any, visual_tokens: int) -> list[Prompt]:
    """The prompts of items: the image on a line of its own before the question, as in LLaVA.

    Raises InputError for a tokenizer without a chat template or without the token `<image>`.
    """
    template = ConversationTemplate(tokenizer, "chat")
    image_token = image_token_id(tokenizer)
    asked = [f"{IMAGE}\n{item.prompt}" if item.image else item.prompt for item in items]
    distinct = list(dict.fromkeys(asked))
    texts = [template.prompt([{"role": "user", "text": text}]) for text in distinct]
    prompts = {}
    for text, ids in zip(
        distinct, tokenizer(texts, add_special_tokens=False).input_ids, strict=True
    ):
        row = np.asarray(ids, dtype=np.int64)
        expanded, _ = expand_images(row, row, image_token, visual_tokens)
        prompts[text] = Prompt(expanded.tolist(), int((row != image_token).sum()))
    return [prompts[text] for text in asked]
