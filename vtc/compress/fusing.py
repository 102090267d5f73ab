"""Compressors that also rewrite the text: the LLM is fed the visual tokens and fused embeddings."""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from vtc.compress.interface import Compressor, VisionFeatures


class Memory(NamedTuple):
    """What text attends to of I images: keys and values of S tokens in each of L layers."""

    keys: Float[Tensor, "L I H S E"]
    values: Float[Tensor, "L I H S E"]

    def of(self, images: Int[Tensor, " P"]) -> "Memory":
        """Those of some images, each as often as it is named."""
        return Memory(self.keys[:, images], self.values[:, images])


class Fusing(Compressor):
    """A compressor that first makes visual tokens, of the image alone, and then reads text."""

    fuses: ClassVar[bool] = True

    def forward(self, features: VisionFeatures) -> Float[Tensor, "B V text_width"]:
        """The visual tokens of B images, which do not depend on any text."""
        return self.read(features)[0]

    @abstractmethod
    def read(self, features: VisionFeatures) -> tuple[Float[Tensor, "B V text_width"], Memory]:
        """The visual tokens of B images, and what text will attend to."""

    @abstractmethod
    def fuse(
        self,
        text: Float[Tensor, "R Q text_width"],
        memory: Memory,
        images: Int[Tensor, "R M"],
        seen: Bool[Tensor, "R Q Q"],
    ) -> Float[Tensor, "R Q text_width"]:
        """The embeddings of R texts as the LLM is fed them.

        `images` are the places in the memory of those that each row shows, -1 for none; at least
        one a row. `seen` says which tokens of its text each token attends to: itself, and those
        that stand before it.
        """
