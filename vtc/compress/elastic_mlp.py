"""LLaVA's MLP with means of patches, in whatever order: its weights have one shape for all V."""

from collections.abc import Sequence

from vtc.compress.choices import Grid
from vtc.compress.elastic import Elastic
from vtc.compress.mlp import Mlp


class ElasticMlp(Elastic, Mlp):
    """Base of compressors that pool before, within or behind LLaVA's MLP.

    Setting: `trained`, the V of an elastic training (see `elastic.Elastic`).
    """

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        trained: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            vision_width=vision_width,
            text_width=text_width,
            depth=depth,
            grid=grid,
            visual_tokens=visual_tokens,
            level=level,
        )
        self.take_turns(trained)
