"""PyramidDrop: stages of the LLM, each with a share of the visual tokens of the one before."""

from vtc.compress import pruning
from vtc.compress.choices import Grid
from vtc.compress.inllm import InLlm
from vtc.compress.pruning import Schedule


class PyramidDrop(InLlm):
    """Xing et al., PyramidDrop (2410.17247), section 3.2: dropped at the end of each stage.

    Kept are the tokens that the prompt's last token attends to most, mean over heads, by the
    queries and keys that the next layer makes of all tokens of the stage, as released.

    Settings: `stages` (S; 4), `average` or `ratio` (lambda, the share kept of each stage, 0.5:
    published), `level`, and `reference_behaviour`: behind a drop the tokens that are left are
    numbered anew, so that the text behind an image moves nearer to what is before it, layer by
    layer; here each keeps the position that it came with.
    """

    source = "PyramidDrop (arXiv 2410.17247)"
    ranked_by_next = True

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        stages: int | None = None,
        average: int | None = None,
        ratio: float | None = None,
        reference_behaviour: bool = False,
    ) -> None:
        super().__init__(
            vision_width=vision_width,
            text_width=text_width,
            depth=depth,
            grid=grid,
            visual_tokens=visual_tokens,
            level=level,
            stages=stages,
            average=average,
            ratio=ratio,
        )
        self.packs = reference_behaviour

    def schedule(self, n_layers: int) -> Schedule:
        """Fewer tokens from stage to stage; raises InputError as `pruning.pyramiddrop`."""
        return pruning.pyramiddrop(n_layers, self.visual_tokens, **self.chosen)
