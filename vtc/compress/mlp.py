"""LLaVA-1.5's projector: a two-layer MLP on every patch, no compression."""

from jaxtyping import Float
from torch import Tensor, nn

from vtc.compress.choices import Grid, every_patch
from vtc.compress.interface import Compressor, FeatureRequest, VisionFeatures, resolve_level
from vtc.compress.layers import linear_flops
from vtc.compress.published import Published, both


class Mlp(Compressor):
    """Linear(D, text_width), GELU, Linear(text_width, text_width) on each patch: V = N.

    Liu et al., Improved Baselines with Visual Instruction Tuning (2310.03744), section 3.2; the
    parameters carry the names of transformers' LlavaMultiModalProjector.
    """

    source = "LLaVA-1.5 (arXiv 2310.03744)"
    published = Published(
        both({"linear_1": "0", "linear_2": "2"}),
        lambda tensors, grid: {
            "vision_width": tensors["0.weight"].shape[1],
            "text_width": tensors["0.weight"].shape[0],
            "visual_tokens": grid[0] * grid[1],
        },
    )

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
    ) -> None:
        super().__init__(grid=grid, visual_tokens=visual_tokens)
        self.level = resolve_level(level, depth)
        self.request = FeatureRequest((self.level,))
        self.linear_1 = nn.Linear(vision_width, text_width)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(text_width, text_width)

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """Every patch is a token: rows * columns is the only choice."""
        return every_patch(grid)

    def forward(self, features: VisionFeatures) -> Float[Tensor, "B V text_width"]:
        """Project every patch."""
        return self.project(features.levels[self.level])

    def project(self, patches: Float[Tensor, "B V D"]) -> Float[Tensor, "B V text_width"]:
        """The MLP alone."""
        return self.linear_2(self.act(self.linear_1(patches)))

    def flops(self) -> int:
        """Two products a token."""
        return self.visual_tokens * linear_flops(self.linear_1, self.linear_2)

    def reset_parameters(self) -> None:
        """torch's default for Linear, which LLaVA keeps."""
        self.linear_1.reset_parameters()
        self.linear_2.reset_parameters()
