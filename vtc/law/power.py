"""The law Y(N, V) = k N^-alpha V^-beta + D and what follows from it in closed form.

Pure Python: `recommend` answers from it without loading NumPy. Source of the form: Li et al.,
"Inference Optimal VLMs Need Fewer Visual Tokens and More Parameters" (arXiv 2411.03312),
section 3, with A and B merged into one factor k, because only their product is identified.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BILLION = 1e9


@dataclass(frozen=True)
class PowerLaw:
    """One fitted law; N is counted in billions of parameters inside k.

    `draws` are (k, alpha, beta, D) of laws that the data admit as well, for intervals.
    """

    k: float
    alpha: float
    beta: float
    d: float = 0.0
    draws: Sequence[tuple[float, float, float, float]] = field(default=(), repr=False)

    @property
    def ratio(self) -> float | None:
        """alpha / beta, or None unless both exponents are positive."""
        return self.alpha / self.beta if self.alpha > 0 and self.beta > 0 else None

    def error(self, n_params: float, visual_tokens: float) -> float:
        """Predicted error (share in [0, 1]) of an LLM of `n_params` with `visual_tokens`."""
        return power(self.k, self.alpha, self.beta, self.d, n_params, visual_tokens)

    def interval(
        self, n_params: float, visual_tokens: float, level: float
    ) -> tuple[float, float] | None:
        """Central interval of the law's mean error from the draws; None without draws."""
        if not self.draws:
            return None
        return central([power(*draw, n_params, visual_tokens) for draw in self.draws], level)


def power(
    k: float, alpha: float, beta: float, d: float, n_params: float, visual_tokens: float
) -> float:
    """k (N / 1e9)^-alpha V^-beta + D, with k > 0."""
    log = math.log(k) - alpha * math.log(n_params / BILLION) - beta * math.log(visual_tokens)
    # Laws of hopeless data may have absurd exponents: far from the data they stay finite.
    return math.exp(min(log, 700.0)) + d


def optimal_visual_tokens(ratio: float, text_tokens: float) -> float:
    """V that minimises the law at a fixed 2 N (Q + V): Q / (alpha / beta - 1).

    From d ln(Y - D) = 0 along N = F / (2 (Q + V)): alpha / (Q + V) = beta / V. Neither k, D, the
    budget nor the unit of N enters. Infinite at a ratio of at most 1 (as many tokens as possible),
    0 at Q = 0 and alpha > beta (as few as possible).
    """
    return text_tokens / (ratio - 1) if ratio > 1 else math.inf


def from_row(row: Mapping[str, Any]) -> PowerLaw:
    """The law of a row of the law table (its alpha must not be empty)."""
    draws = zip(
        *(row.get(f"draw_{name}") or () for name in ("k", "alpha", "beta", "d")), strict=True
    )
    return PowerLaw(row["k"], row["alpha"], row["beta"], row["d"], tuple(draws))


def central(errors: Sequence[float], level: float) -> tuple[float, float]:
    """Central interval of drawn errors within [0, 1]: an error is a share.

    Far from the data, and under the noise of a run, draws may leave it.
    """
    values, tail = sorted(errors), (1 - level) / 2
    low, high = (min(max(quantile(values, share), 0.0), 1.0) for share in (tail, 1 - tail))
    return low, high


def quantile(ordered: Sequence[float], share: float) -> float:
    """The quantile of an ascending sequence, linear between its members."""
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
