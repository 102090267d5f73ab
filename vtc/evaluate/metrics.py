"""The metrics by name: those of texts, and those that a benchmark brings along."""

from vtc.errors import InputError
from vtc.evaluate.benchmarks import (
    ai2d,
    chartqa,
    docvqa,
    gqa,
    mathvista,
    mmbench,
    mme,
    mmmu,
    pope,
    scienceqa,
    textvqa,
    vqav2,
)
from vtc.evaluate.metric import Metric, Scored, Truth

__all__ = ["METRICS", "Metric", "Scored", "Truth", "get"]

METRICS: dict[str, Metric] = {
    "exact_match": gqa.METRIC,
    "relaxed": chartqa.METRIC,
    "anls": docvqa.METRIC,
    "vqa": textvqa.METRIC,
    "vqav2": vqav2.METRIC,
    "mme": mme.METRIC,
    "pope": pope.METRIC,
    "ai2d": ai2d.METRIC,
    "scienceqa": scienceqa.METRIC,
    "mmbench": mmbench.METRIC,
    "mmmu": mmmu.METRIC,
    "mathvista": mathvista.METRIC,
}


def get(name: str, where: str) -> Metric:
    """The metric of that name; raises InputError naming `where` and the choices."""
    if name not in METRICS:
        raise InputError(f"{where}: no metric '{name}'; choose from {', '.join(METRICS)}")
    return METRICS[name]
