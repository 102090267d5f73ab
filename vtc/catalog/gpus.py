"""GPUs the program knows: memory, bandwidth and dense bf16 peak, each with its source."""

import re
from dataclasses import dataclass
from functools import cache

from vtc.catalog import rows
from vtc.errors import InputError

# The driver and the memory's error correction keep some of what is on the label.
_USABLE = 0.97

# Shares of the peaks where nobody has measured them: in the middle of 0.5 to 0.7 and 0.7 to 0.9,
# the ranges that llm-analysis and others advise. `vtc profile` measures them.
COMPUTE_EFFICIENCY = 0.6
BANDWIDTH_EFFICIENCY = 0.8


@dataclass(frozen=True)
class Gpu:
    """One GPU. `bf16_flops` is the dense peak a second with fp32 accumulation, never reached.

    The efficiencies are the shares of that peak, and of the bandwidth, that inference reaches.
    """

    gpu: str
    name: str
    memory_gb: float
    bandwidth_gb_s: float
    bf16_flops: float
    source: str
    compute_efficiency: float = COMPUTE_EFFICIENCY
    bandwidth_efficiency: float = BANDWIDTH_EFFICIENCY

    @property
    def usable_bytes(self) -> int:
        """What a process may fill: the label counts GiB, of which some 3 % are never free."""
        return int(self.memory_gb * 2**30 * _USABLE)


@cache
def catalog() -> tuple[Gpu, ...]:
    """The GPUs of gpus.csv, in its order, and those of the user's own gpus.csv."""
    return tuple(_gpu(row, where) for row, where in rows.read("gpus", "gpu"))


def _gpu(row: rows.Row, where: str) -> Gpu:
    shares = {
        name: rows.positive(row, name, where, default)
        for name, default in (
            ("compute_efficiency", COMPUTE_EFFICIENCY),
            ("bandwidth_efficiency", BANDWIDTH_EFFICIENCY),
        )
    }
    for name, share in shares.items():
        if share > 1:
            raise InputError(f"{where}: {name} is {share:g}; it is a share of the peak, at most 1")
    return Gpu(
        rows.text(row, "gpu", where),
        row.get("name") or row["gpu"],
        rows.positive(row, "memory_gb", where),
        rows.positive(row, "bandwidth_gb_s", where),
        rows.positive(row, "bf16_tflops", where) * 1e12,
        rows.text(row, "source", where),
        **shares,
    )


def find(name: str) -> Gpu:
    """The GPU of a name such as rtx4090, "RTX 4090", A100-80GB; raises InputError with the choices.

    Of a driver's name ("NVIDIA GeForce RTX 4090", "NVIDIA A100-SXM4-80GB") maker and socket are
    left out.
    """
    wanted = _key(name)
    for gpu in catalog():
        if wanted in (_key(gpu.gpu), _key(gpu.name)):
            return gpu
    raise InputError(
        f"--gpu {name} is unknown; choose from {', '.join(gpu.gpu for gpu in catalog())}"
    )


def _key(name: str) -> str:
    return re.sub(r"nvidia|geforce|jetson|super|sxm\d?|hbm\d?e?|[^a-z0-9]", "", name.lower())
