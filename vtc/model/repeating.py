"""Visual tokens fed several times over: more FLOPs in the LLM, no more information.

The control of 2411.03312, section 3.3.2. The whole sequence of an image's V tokens stands k times
in a row, t1 ... tV t1 ... tV, so that k V tokens enter the LLM, each at a position of its own.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from vtc.errors import InputError


def repeated(
    tokens: Float[Tensor, "I V text_width"], times: int
) -> Float[Tensor, "I kV text_width"]:
    """The tokens of each image, the whole sequence `times` in a row."""
    return tokens if times == 1 else tokens.repeat(1, times, 1)


def entering(model: Any) -> int:
    """The visual tokens of an image that enter the LLM: the compressor's V, repeats counted."""
    return model.compressor.visual_tokens * model.config.repeat_visual_tokens


def repeat_at(model: Any, processor: Any, times: int | None) -> None:
    """Let a model and its processor repeat visual tokens so often; None leaves them as they are.

    Raises InputError for less than once.
    """
    if times is None:
        return
    if times < 1:
        raise InputError(f"visual tokens cannot be repeated {times} times; 1 feeds them once")
    model.config.repeat_visual_tokens = times
    model.config.image_seq_length = entering(model)
    processor.visual_tokens = entering(model)
