"""A plan: which runs to make next for a goal, and what they are expected to tell."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vtc.errors import InputError, NoAnswerError
from vtc.law import intervals
from vtc.law.design import Line, Noise, Sums, expected, half_width, likely_llm_sd, line
from vtc.law.design_forms import Told, Views, views
from vtc.law.design_goals import Goal, Quantity, quantity, tokens
from vtc.law.design_pool import Candidate, Pool, pool_of
from vtc.law.design_search import Step, gains, in_pairs, search
from vtc.law.intervals import Surrogate
from vtc.law.points import Points
from vtc.law.regret import best_tokens, slope_of, worst
from vtc.law.rows import arrays
from vtc.law.splitplot import noise_sds
from vtc.law.varpro import fit_many
from vtc.tables.specs import PLAN

DISCRIMINATE = "discriminate"
# Residuals below this are what rounding leaves.
_NO_NOISE = 1e-9


@dataclass(frozen=True)
class Question:
    """What to plan: measured points with the row of their law, and what could be run.

    `hours` is the budget in GPU-hours; `stop` the share of FLOPs below which a wrong V is no
    matter. `run_sd` and `llm_sd` None are learnt from the points. `each`: rate the candidates one
    by one in place of a plan.
    """

    points: Points
    law: Mapping[str, Any]
    candidates: Sequence[Candidate]
    goal: Goal
    hours: float
    forms: tuple[str, str] = ("power", "log-linear")
    run_sd: float | None = None
    llm_sd: float | None = None
    level: float = 0.95
    text_tokens: float = 50.0
    stop: float = 0.02
    each: bool = False


class Doubt(NamedTuple):
    """Of a quantity under a design: half its interval, its standard error, and the ends."""

    half: float
    se: float
    low: float | None
    high: float | None


class Plan(NamedTuple):
    """The rows of the table, and what words about them need besides."""

    rows: list[dict[str, Any]]
    noise: Noise
    now: Doubt  # of the goal's quantity
    value: float
    conservative: tuple[float | None, float | None] | None  # of alpha/beta
    regret: float | None
    best_v: float | None
    pairs: bool
    forms_fit: bool


def plan(question: Question) -> Plan:
    """The plan, or the candidates rated.

    Raises NoAnswerError where the points tell no law or no noise, no candidate fits the budget, or
    none would narrow anything; InputError without a candidate.
    """
    points = question.points
    if not question.candidates:
        raise InputError("no run to choose from: give --sizes and --tokens, or --candidates")
    _check_budget(question)
    line_, found = _linearise(points)
    noise = noise_of(question, found)
    pool = pool_of(points, line_, question.candidates)
    n_columns = pool.base.gram.shape[-1]
    target = quantity(_narrowed(question.goal, line_), line_, n_columns)
    state = _State(question, pool, noise, target, line_)
    told = question.goal.kind == DISCRIMINATE
    if told and state.seen is None:
        raise NoAnswerError(f"--forms {','.join(question.forms)}: one does not fit the points")
    fresh = gains(pool, target.gradient, noise, question.level, state.seen, told)
    if question.each:
        rows = _each(state, fresh().alone())
    else:
        rows = _path(state, search(pool, fresh, question.hours))
    if not rows:
        raise NoAnswerError(
            f"no run of the {len(question.candidates)} candidates within "
            f"{question.hours:g} GPU-hours would help with {question.goal.title}; "
            "add other --sizes or --tokens, or --seeds"
        )
    return Plan(
        rows,
        noise,
        state.doubt(pool.base),
        state.shown_value,
        state.conservative,
        state.regret_now,
        state.best_v,
        in_pairs(pool),
        state.seen is not None,
    )


def noise_of(question: Question, found: Surrogate) -> Noise:
    """The noise stated, or else what the points' mean squares say of it.

    Raises NoAnswerError where neither knows a run's noise.
    """
    strata = found.strata
    run, llm = question.run_sd, question.llm_sd
    if strata is None:
        if run is None:
            raise NoAnswerError(
                f"{question.points.title}: too few points to tell the noise of a run; state it "
                "with --run-sd (and --llm-sd), or add runs first"
            )
        return Noise(run, run if llm is None else llm)
    if run is None:
        run = noise_sds(strata)[0]
        if run < _NO_NOISE:
            raise NoAnswerError(
                f"{question.points.title}: the points follow a law to the last digit, so there is "
                "no noise to plan against; state it with --run-sd (and --llm-sd)"
            )
    if llm is None and strata.df_between:
        unit = float((strata.plots**2).sum(axis=1).mean())
        llm = likely_llm_sd(run**2, strata.ms_between, strata.df_between, strata.plot_size, unit)
    # With two sizes nothing tells: as large as a run's noise.
    return Noise(run, run if llm is None else llm)


def _check_budget(question: Question) -> None:
    cheapest = min(question.candidates, key=lambda one: one.hours)
    if cheapest.hours > question.hours:
        raise NoAnswerError(
            f"--budget-gpu-hours {question.hours:g} is less than the cheapest run takes: "
            f"{cheapest.llm} with V = {cheapest.visual_tokens} needs {cheapest.hours:.3g} GPU-hours"
        )


def _linearise(points: Points) -> tuple[Line, Surrogate]:
    log_n, log_v, errors = arrays(points)
    if np.ptp(log_n) == 0 or np.ptp(log_v) == 0:
        what = "LLM size" if np.ptp(log_n) == 0 else "number of visual tokens"
        raise NoAnswerError(
            f"{points.title}: one {what} only, so there is no law to plan by; first run a second "
            f"{what}, whichever it is"
        )
    fit = fit_many(log_n, log_v, errors[None])
    if not np.isfinite(fit.sse[0]):
        raise NoAnswerError(f"no law for {points.title}: no power law fits the points")
    found = intervals.surrogate(log_n, log_v, errors, fit)
    return line(found, log_n, log_v, errors), found


def _narrowed(goal: Goal, line_: Line) -> Goal:
    """What the interval columns are of: to tell forms apart narrows nothing by itself."""
    if goal.kind != DISCRIMINATE:
        return goal
    if line_.alpha > 0 and line_.beta > 0:
        return Goal("ratio")
    raise NoAnswerError(
        f"{line_.exponents} are not both positive: forms of the law are not to be told "
        "apart on these points; look at them first"
    )


class _State:
    """All that the rows of a plan are made of."""

    def __init__(
        self, question: Question, pool: Pool, noise: Noise, target: Quantity, line_: Line
    ) -> None:
        self.question, self.pool, self.noise, self.target = question, pool, noise, target
        self.seen: Views | None = views(question.points, pool, question.forms, noise)
        row = question.law
        self.ratio: Quantity | None = None
        if line_.alpha > 0 and line_.beta > 0:
            self.ratio = quantity(Goal("ratio"), line_, len(target.gradient))
        used = [p.visual_tokens for p in question.points.points]
        used += [one.visual_tokens for one in question.candidates]
        self.span = (float(min(used)), float(max(used)))
        self.conservative = _conservative(row) if row["ratio"] else None
        self.regret_now = self.best_v = None
        if row["ratio"] and self.conservative:
            q = question.text_tokens
            self.regret_now = worst(row["ratio"], *self.conservative, q, self.span)
        if row["ratio"]:
            best = best_tokens(slope_of(row["ratio"]), question.text_tokens, self.span)
            self.best_v = float(best)

    @property
    def shown_value(self) -> float:
        """The goal's quantity as the table shows it."""
        if self.question.goal.kind != "vstar":
            return self.target.value
        ends = tokens((self.target.value, self.target.value), self.question.text_tokens)
        return self.span[1] if ends[0] is None else ends[0]

    def doubt(self, design: Sums) -> Doubt:
        """About the goal's quantity, under a design; of V* the ends are tokens."""
        found = expected(design, self.target.gradient, self.noise, self.pool.unit)
        half, se = half_width(found, self.question.level), float(found.se)
        ends = self.target.interval(half, se)
        if self.question.goal.kind == "vstar":
            ends = tokens(ends, self.question.text_tokens)
        return Doubt(half, se, *ends)

    def regret(self, design: Sums) -> float | None:
        """The worst case once the conservative interval has shrunk as the split-plot one does."""
        if self.regret_now is None or self.conservative is None or self.ratio is None:
            return None
        low, high = self.conservative
        if low is None or high is None:
            return None
        before, after = (
            half_width(
                expected(one, self.ratio.gradient, self.noise, self.pool.unit), self.question.level
            )
            for one in (self.pool.base, design)
        )
        share = after / before if np.isfinite(before) else 1.0
        ratio = float(self.question.law["ratio"])
        ends = (ratio * (low / ratio) ** share, ratio * (high / ratio) ** share)
        return worst(ratio, *ends, self.question.text_tokens, self.span)


def _conservative(row: Mapping[str, Any]) -> tuple[float | None, float | None] | None:
    """The hull of the ratio's interval and of the jackknife over sizes; None without either."""
    lows = [row[f"{name}_low"] for name in ("ratio", "ratio_jackknife")]
    highs = [row[f"{name}_high"] for name in ("ratio", "ratio_jackknife")]
    # Without the split-plot interval the data do not bound the ratio.
    if lows[0] is None or highs[0] is None:
        return None, None
    return (
        min(end for end in lows if end is not None),
        max(end for end in highs if end is not None),
    )


def _path(state: _State, steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Rows of a plan, each run beside those before it."""
    pool, design = state.pool, state.pool.base
    told = Told(state.seen) if state.seen else None
    llms = {point.n_params for point in state.question.points.points}
    made: Counter[tuple] = Counter()
    known = {("", size) for size in llms}
    start = before = state.doubt(design)
    rows: list[dict[str, Any]] = []
    spent = 0.0
    for number, step in enumerate(steps, start=1):
        one = state.question.candidates[step.index]
        design = design.plus(pool.each.at(step.index))
        after = state.doubt(design)
        spent += one.hours
        made[one.cell] += 1
        row = _row(state, one, step.index, number, before, after)
        row |= {
            "gpu_hours_total": spent,
            "replicate": int(pool.measured[step.index]) + made[one.cell],
            "new_llm": one.plot not in known,
            "with_next": step.paired,
            "shrinkage_total": _shrinkage(start.half, after.half),
            "regret": state.regret(design),
        }
        known.add(one.plot)
        if told:
            row["sigma"] = float(np.sqrt(max(told.alone()[step.index], 0.0)))
            told.take(step.index)
            row["sigma_total"] = float(np.sqrt(told.chi_square))
        rows.append(PLAN.complete(row))
        before = after
    return rows


def _each(state: _State, gain: np.ndarray) -> list[dict[str, Any]]:
    """Rows of all candidates within the budget, each alone, the most gain an hour first."""
    pool, base = state.pool, state.doubt(state.pool.base)
    told = Told(state.seen).alone() if state.seen else None
    known = {("", point.n_params) for point in state.question.points.points}
    rows = []
    order = np.argsort(-gain / pool.hours, kind="stable").tolist()
    for index in order:
        one = state.question.candidates[index]
        if one.hours > state.question.hours:
            continue
        design = pool.base.plus(pool.each.at(index))
        row = _row(state, one, index, len(rows) + 1, base, state.doubt(design))
        row |= {
            "gpu_hours_total": one.hours,
            "replicate": int(pool.measured[index]) + 1,
            "new_llm": one.plot not in known,
            "with_next": False,
            "shrinkage_total": row["shrinkage"],
            "regret": state.regret(design),
        }
        if told is not None:
            row["sigma"] = row["sigma_total"] = float(np.sqrt(max(told[index], 0.0)))
        rows.append(PLAN.complete(row))
    return rows


def _row(
    state: _State, one: Candidate, index: int, number: int, before: Doubt, after: Doubt
) -> dict[str, Any]:
    question, points = state.question, state.question.points
    shrinkage = _shrinkage(before.half, after.half)
    tokens_ = [point.visual_tokens for point in points.points]
    inside = points.sizes[0] <= one.n_params <= points.sizes[-1]
    inside = inside and min(tokens_) <= one.visual_tokens <= max(tokens_)
    return {
        "step": number,
        "task": points.task,
        "goal": question.goal.kind,
        "llm": one.llm,
        "family": one.family,
        "n_params": one.n_params,
        "visual_tokens": one.visual_tokens,
        "compressor": one.compressor,
        "own_level": " ".join(filter(None, one.level)) or None,
        "gpu_hours": one.hours,
        "flops": one.flops,
        "value": state.shown_value,
        "before_low": before.low,
        "before_high": before.high,
        "after_low": after.low,
        "after_high": after.high,
        "shrinkage": shrinkage,
        "shrinkage_per_hour": None if shrinkage is None else shrinkage / one.hours,
        "se_shrinkage": 1 - after.se / before.se if before.se > 0 else None,
        "gap": float(state.seen.gap[index]) if state.seen else None,
        "extrapolates": not inside,
        "n_convention": points.convention,
        "run_sd": state.noise.run_sd,
        "llm_sd": state.noise.llm_sd,
        "level": question.level,
        "data_sha": points.sha(),
    }


def _shrinkage(before: float, after: float) -> float | None:
    """The share of a width that goes; None where there was no interval."""
    return 1 - after / before if np.isfinite(before) and np.isfinite(after) else None
