"""What compressors that need no training share: LLaVA's projector behind a choice of tokens."""

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vtc.compress.interface import VisionFeatures
from vtc.compress.layers import linear_flops
from vtc.compress.mlp import Mlp

HEAD_WIDTH = 64
"""The width of an attention head of CLIP, SigLIP, ViT and DINOv2, as FLOPs are stated."""


class TrainingFree(Mlp):
    """Chooses or merges tokens of the encoder, then projects V of them: LLaVA's MLP.

    The choice has no weights, so that the projector of any finished mlp run serves as it is; one
    may also be trained on the reduced tokens.
    """

    trained = False
    published = None

    @abstractmethod
    def reduce(self, features: VisionFeatures) -> Float[Tensor, "B V D"]:
        """The V tokens of the encoder's width."""

    @abstractmethod
    def reducing_flops(self) -> int:
        """FLOPs of `reduce` for one image."""

    def forward(self, features: VisionFeatures) -> Float[Tensor, "B V text_width"]:
        """Reduce, then project."""
        return self.project(self.reduce(features))

    def flops(self) -> int:
        """The choice, and the projector's two products a token."""
        return self.reducing_flops() + self.visual_tokens * self.projector_flops()

    def projector_flops(self) -> int:
        """FLOPs of the projector for one token."""
        return linear_flops(self.linear_1, self.linear_2)

    def projecting_keys_flops(self) -> int:
        """FLOPs of the class token's query, of every token's key, and of their products."""
        tokens, width = self.grid[0] * self.grid[1] + 1, self.linear_1.in_features
        return 2 * (tokens + 1) * width**2 + 2 * tokens * width


def take(tokens: Float[Tensor, "B N D"], places: Int[Tensor, "B K"]) -> Float[Tensor, "B K D"]:
    """The tokens at some places of each image, in their order."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def others(places: Int[Tensor, "B K"], n_tokens: int) -> Int[Tensor, "B R"]:
    """The places of 0 ... n_tokens - 1 that are not among K different ones, ascending."""
    left = torch.ones(len(places), n_tokens, dtype=torch.bool, device=places.device)
    return where(left.scatter(1, places, False), n_tokens - places.shape[1])


def where(marked: Bool[Tensor, "B N"], count: int) -> Int[Tensor, "B count"]:
    """The places of the first `count` marks of each row, ascending."""
    return marked.int().sort(dim=1, descending=True, stable=True).indices[:, :count]
