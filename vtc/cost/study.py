"""What one more run of a study takes, of its N and V alone: both stages and the frozen encoder.

The count of the published study's costs (2 N a token forward), carried over to training: a weight
that is frozen but passes gradients on takes 4 N a token, one that trains 6 N. It needs no shape, so
an LLM that is only a size has it too; `cost.job` is exact, for LLMs with a shape.
"""

from dataclasses import dataclass

# LLaVA-1.5 (arXiv 2310.03744): 558,128 captions, then 665,298 conversations; tokens approximate.
LLAVA_SAMPLES = (558_128.0, 665_298.0)
LLAVA_TEXT = (30.0, 250.0)


@dataclass(frozen=True)
class Study:
    """Samples and text tokens a sample of the two stages, and the encoder's FLOPs an image."""

    samples: tuple[float, float] = LLAVA_SAMPLES
    text: tuple[float, float] = LLAVA_TEXT
    image_flops: float = 0.0

    def flops(self, n_params: float, visual_tokens: float) -> float:
        """4 N S1 (V + T1) + 6 N S2 (V + T2), and the encoder once a sample."""
        (s1, s2), (t1, t2) = self.samples, self.text
        llm = 4 * s1 * (visual_tokens + t1) + 6 * s2 * (visual_tokens + t2)
        return n_params * llm + (s1 + s2) * self.image_flops
