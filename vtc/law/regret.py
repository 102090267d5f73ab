"""What a choice of V wastes if alpha/beta is another than thought, in FLOPs at equal error.

At a fixed error the law asks for N V^(beta/alpha) = constant, so that FLOPs 2 N (Q + V) go as
(Q + V) V^(-1 / ratio): neither k, nor D, nor the budget enters. Wasted is the share of the FLOPs
that the best V would save.
"""

import math

from vtc.law.power import optimal_visual_tokens


def best_tokens(ratio: float | None, text_tokens: float, fewest: float, most: float) -> float:
    """The best V within [fewest, most]; of no ratio (zero: tokens alone help) the most."""
    best = optimal_visual_tokens(ratio, text_tokens) if ratio else math.inf
    return min(max(best, fewest), most)


def wasted(
    visual_tokens: float, ratio: float | None, text_tokens: float, fewest: float, most: float
) -> float:
    """Share of FLOPs in [0, 1) that `visual_tokens` wastes where the truth is `ratio`.

    None is a ratio of zero: all that is not the most tokens is wasted.
    """
    best = best_tokens(ratio, text_tokens, fewest, most)
    if not ratio:
        return 0.0 if visual_tokens >= most else 1.0

    def log_flops(v: float) -> float:
        return math.log(text_tokens + v) - math.log(v) / ratio

    return max(0.0, -math.expm1(log_flops(best) - log_flops(visual_tokens)))


def worst(
    ratio: float, low: float | None, high: float | None, text_tokens: float, span: tuple
) -> float:
    """The most that the best V for `ratio` wastes where the truth lies in [low, high].

    What is wasted grows with the distance of the truth to either side, so the ends decide. An end
    that is None is unbounded: zero below, infinite above. `span` is the fewest and the most V.
    """
    chosen = best_tokens(ratio, text_tokens, *span)
    above = math.inf if high is None else high
    return max(wasted(chosen, end, text_tokens, *span) for end in (low, above))
