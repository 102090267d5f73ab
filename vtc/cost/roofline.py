"""Time by the roofline model: a phase takes its FLOPs or its bytes, whichever take longer.

Williams et al., "Roofline" (2009). Two shares of a GPU's peaks stand for everything that is not
ideal; both are settings, and `vtc profile` measures them. Launching kernels is not counted, so
that small LLMs at batch 1 are slower than this on engines without CUDA graphs.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vtc.catalog.gpus import Gpu
from vtc.cost.inference import Work


@dataclass(frozen=True)
class Machine:
    """What a device reaches in practice: FLOP and bytes a second."""

    flops: float
    bandwidth: float

    @property
    def ridge(self) -> float:
        """FLOPs a byte at which compute and bandwidth take the same time."""
        return self.flops / self.bandwidth

    def ridge_tokens(self, bytes_a_weight: float = 2.0) -> float:
        """Tokens of a batch below which a prefill is bound by reading the weights.

        2 FLOPs a weight and token against `bytes_a_weight` a weight.
        """
        return self.ridge * bytes_a_weight / 2


def machine(gpu: Gpu, compute: float | None = None, bandwidth: float | None = None) -> Machine:
    """A GPU at its own efficiencies, or at those given."""
    return Machine(
        gpu.bf16_flops * (compute or gpu.compute_efficiency),
        gpu.bandwidth_gb_s * 1e9 * (bandwidth or gpu.bandwidth_efficiency),
    )


class Spent(NamedTuple):
    """Seconds of a phase for a whole batch, and whether its FLOPs bind (else its bytes)."""

    seconds: Any
    compute: Any


def spent(work: Work, batch: int, machine: Machine) -> Spent:
    """The time of a phase of `batch` inferences at once."""
    computing, moving = batch * work.flops / machine.flops, work.bytes / machine.bandwidth
    return Spent(np.maximum(computing, moving), computing >= moving)
