"""Items as token ids: through the chat template, exactly as training saw questions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from vtc.data.conversations import IMAGE
from vtc.data.image_places import QueryPosition
from vtc.data.labels import TurnEncoder, expand_images
from vtc.data.queries import words
from vtc.evaluate.items import Item


class Prompt(NamedTuple):
    """Token ids of a prompt, its image as V image tokens, and how many of them are text.

    `query` is the prompt in words, for compressors that read it.
    """

    ids: list[int]
    n_text_tokens: int
    query: str = ""

    def length(self, visual_tokens: int) -> int:
        """Tokens of the prompt with each of its image tokens `visual_tokens` times."""
        return self.n_text_tokens + visual_tokens * (len(self.ids) - self.n_text_tokens)

    def expanded(self, image_token: int, visual_tokens: int) -> "Prompt":
        """The prompt with each of its image tokens `visual_tokens` times."""
        times = {image_token: visual_tokens}
        return self._replace(ids=[id_ for one in self.ids for id_ in [one] * times.get(one, 1)])


def tokenise(
    items: Sequence[Item],
    tokenizer: Any,
    visual_tokens: int,
    query_position: QueryPosition = "after",
) -> list[Prompt]:
    """The prompts of items, each image on a line of its own on the side that training had it.

    An `<image>` inside a prompt's text is no image and is left out.

    Raises InputError for a tokenizer without a chat template or without the token `<image>`.
    """
    encoder = TurnEncoder(tokenizer, "chat", query_position)
    asked = [f"{IMAGE}\n" * len(item.images) + item.prompt.replace(IMAGE, "") for item in items]
    prompts = {}
    for text in dict.fromkeys(asked):
        row = encoder.prompt([{"role": "user", "text": text}])
        expanded, _ = expand_images(row, row, encoder.image_token_id, visual_tokens)
        n_text_tokens = int((row != encoder.image_token_id).sum())
        prompts[text] = Prompt(expanded.tolist(), n_text_tokens, words(text))
    return [prompts[text] for text in asked]
