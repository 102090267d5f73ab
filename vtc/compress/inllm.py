"""What compressors that drop tokens inside the LLM share: LLaVA's projector on every patch."""

from abc import abstractmethod
from typing import Any

from vtc.compress.choices import Grid
from vtc.compress.mlp import Mlp
from vtc.compress.pruning import Schedule


class InLlm(Mlp):
    """Every patch enters the LLM, as LLaVA's; `model.pruning` drops some between its layers.

    `average`: the most that the visual tokens of an image may be in a layer, the mean over layers,
    each with as many of its own. `ratio`: a share that is kept, as published, in its place.
    """

    trained = False
    published = None
    prunes = True
    ranked_by_next = False
    """Whether the layer behind a drop ranks tokens, and not the one before it."""
    packs = False
    """Whether the tokens that are left have positions in a row, and not those they came with."""

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        **schedule: Any,
    ) -> None:
        super().__init__(
            vision_width=vision_width,
            text_width=text_width,
            depth=depth,
            grid=grid,
            visual_tokens=visual_tokens,
            level=level,
        )
        self.chosen = {name: value for name, value in schedule.items() if value is not None}

    @abstractmethod
    def schedule(self, n_layers: int) -> Schedule:
        """The visual tokens of an image in each of an LLM's layers; InputError if it cannot be."""
