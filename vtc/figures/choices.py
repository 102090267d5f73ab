"""The best LLM and V over a budget and the length of the text: what a decision map shows.

Each cell is what `vtc recommend` puts first: of all real choices that fit the budget the one with
the lowest predicted error, of equal ones the cheapest. No matplotlib.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vtc.catalog import llms
from vtc.catalog.llms import LLM
from vtc.cost.flops import prefill_flops
from vtc.errors import NoAnswerError
from vtc.recommend.deploy import Deployment
from vtc.recommend.grid import static_costs, timed_costs
from vtc.recommend.laws import Mix, refuse_meaningless
from vtc.tables.quantity import format_count

CELLS = (160, 240)  # Of text lengths and of budgets.
NOTHING = -1

Array = np.ndarray


@dataclass(frozen=True)
class Choices:
    """Real LLMs and V, the law that ranks them, and the paper's cost of each."""

    law: Mix
    models: Sequence[LLM]
    visual_tokens: Sequence[int]

    @property
    def label(self) -> str:
        """What the budget is."""
        return "budget: LLM prefill, 2 N (Q + V), in FLOPs"

    @cached_property
    def counts(self) -> list[int]:
        """N of the LLMs, as the law counts it."""
        return llms.counts(self.models, self.law.row["n_convention"])

    @cached_property
    def errors(self) -> Array:
        """Predicted errors [M, V]."""
        return self.law.errors(self.counts, self.visual_tokens)

    def costs(self, text_tokens: float) -> Array:
        """What each choice [M, V] takes of the budget; infinite where it cannot be had."""
        return np.array(
            [[prefill_flops(n, v, text_tokens) for v in self.visual_tokens] for n in self.counts]
        )

    def order(self, costs: Array) -> Array:
        """Places [M * V] from the first choice on, ties as `recommend` breaks them."""
        names = sorted(llm.model for llm in self.models)
        place = np.array([names.index(llm.model) for llm in self.models])
        every = np.broadcast_arrays(place[:, None], np.array(self.counts)[:, None],
                                    np.array(self.visual_tokens)[None])  # fmt: skip
        return np.lexsort((*(key.ravel() for key in every), costs.ravel(), self.errors.ravel()))

    def said(self, budget: float) -> str:
        """A budget in short form: 20G, 1T."""
        return format_count(budget).replace("B", "G")

    def extrapolates(self) -> Array:
        """Whether each choice [M, V] lies outside what the law was fitted on."""
        return np.array([[not self.law.covers(n, v) for v in self.visual_tokens]
                         for n in self.counts])  # fmt: skip


@dataclass(frozen=True)
class Served(Choices):
    """The same by the time to the last token on a deployment's GPU, modelled (docs/recommend.md).

    Choices that its memory does not hold cannot be had.
    """

    deployment: Deployment

    @property
    def label(self) -> str:
        """What the budget is, and where."""
        return f"budget: time to the last token on {self.deployment.devices[0].gpu} (roofline)"

    def costs(self, text_tokens: float) -> Array:
        """Seconds of a batch [M, V]; infinite where the memory does not hold it."""
        asked, device = self.deployment, self.deployment.devices[0]
        service = replace(asked.service, text_tokens=text_tokens)
        static = static_costs(
            asked.shaped, asked.encoder_shape, asked.compressor_of, asked.visual_tokens, service
        )
        timed = timed_costs(static, asked.shaped, asked.visual_tokens, service, device, None)
        usable = np.inf if device.usable_bytes is None else device.usable_bytes
        return np.where(timed.peak <= usable, timed.latency, np.inf)

    def order(self, costs: Array) -> Array:
        """Places [M * V] from the first choice on, ties as `recommend` breaks them."""
        return np.lexsort((costs.ravel(), self.errors.ravel()))

    def said(self, budget: float) -> str:
        """A time in short form: 30 ms, 2 s."""
        return f"{budget:.4g} s" if budget >= 1 else f"{1e3 * budget:.4g} ms"


@dataclass(frozen=True)
class Map:
    """The best choice `best` [Q, B] (a place in [M, V], flattened) of each text and budget."""

    choices: Choices
    text_tokens: Array
    budgets: Array
    best: Array

    @property
    def model(self) -> Array:
        """The place [Q, B] of the best LLM; NOTHING where nothing fits."""
        return np.where(self.best < 0, NOTHING, self.best // len(self.choices.visual_tokens))

    @property
    def tokens(self) -> Array:
        """The place [Q, B] of the best V; NOTHING where nothing fits."""
        return np.where(self.best < 0, NOTHING, self.best % len(self.choices.visual_tokens))

    @property
    def beyond(self) -> Array:
        """Where [Q, B] the best choice lies outside what the law was fitted on."""
        return np.append(self.choices.extrapolates().ravel(), False)[self.best]


def decide(
    choices: Choices,
    text_tokens: tuple[float, ...],
    budgets: tuple[float, ...] | None = None,
    cells: tuple[int, int] = CELLS,
) -> Map:
    """The map from the least to the most text, and from the least to the largest budget.

    Without budgets from where the cheapest choice fits at the least text to where all fit at the
    most. `cells` are [Q, B]. Raises NoAnswerError if nothing fits anywhere, and for a law by which
    larger LLMs err more.
    """
    refuse_meaningless(choices.law, choices.counts)
    low, high = text_tokens
    cheapest, dearest = choices.costs(low).min(), choices.costs(high)
    if not np.isfinite(cheapest):
        raise NoAnswerError("no choice fits the memory at any budget of the map; see --weights")
    most_needed = dearest[np.isfinite(dearest)].max(initial=cheapest)
    least, most = budgets or (cheapest / 1.5, most_needed * 1.5)
    if most < cheapest:
        raise NoAnswerError(
            "nothing fits any budget of the map; the cheapest choice takes "
            f"{choices.said(float(cheapest))}"
        )
    lengths, steps = np.geomspace(low, high, cells[0]), np.geomspace(least, most, cells[1])
    best = np.full(cells, NOTHING)
    for line, q in enumerate(lengths.tolist()):
        costs = choices.costs(q)
        order = choices.order(costs)
        fits = costs.ravel()[order][:, None] <= steps
        best[line] = np.where(fits.any(axis=0), order[fits.argmax(axis=0)], NOTHING)
    return Map(choices, lengths, steps, best)
