"""FastV: behind the first layers of the LLM, the tokens that the prompt looks at least go."""

from vtc.compress import pruning
from vtc.compress.choices import Grid
from vtc.compress.inllm import InLlm
from vtc.compress.pruning import Schedule


class FastV(InLlm):
    """Chen et al., An Image is Worth 1/2 Tokens After Layer 2 (2403.06764), section 4.1.

    Behind `layer` layers, an image keeps the tokens that the last token of the prompt attends to
    most in the layer just run, mean over heads, with the positions they had. All deeper layers,
    and their KV cache, are without the others.

    Settings: `layer` (K; 2), `average` or `ratio` (the share kept, 0.5: published), `level`.
    """

    source = "FastV (arXiv 2403.06764)"

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        layer: int | None = None,
        average: int | None = None,
        ratio: float | None = None,
    ) -> None:
        super().__init__(
            vision_width=vision_width,
            text_width=text_width,
            depth=depth,
            grid=grid,
            visual_tokens=visual_tokens,
            level=level,
            layer=layer,
            average=average,
            ratio=ratio,
        )

    def schedule(self, n_layers: int) -> Schedule:
        """All tokens, then those kept; raises InputError as `pruning.fastv`."""
        return pruning.fastv(n_layers, self.visual_tokens, **self.chosen)
