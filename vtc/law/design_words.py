"""What a plan says in words: what it stands on, what it buys, and whether to stop instead."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from vtc.law.design_plan import DISCRIMINATE, Plan, Question
from vtc.law.design_pool import OWN_LEVEL, Candidate

# What counts as having told two forms apart.
_TOLD = 2.0
# So many levels of their own are named, more are counted.
_NAMED = 9


def describe(question: Question, found: Plan, costs: str) -> list[str]:
    """Sentences on a plan; `costs` says how its hours are counted."""
    lines = [_standing(question, found), f"  {_noise(question, found)}"]
    lines += [f"  {line}" for line in _pool(question, found)]
    lines.append(f"  {costs}")
    lines.append(_each(question, found) if question.each else _path(question, found))
    return [*lines, *_stop(question, found), *_marks(found)]


def _standing(question: Question, found: Plan) -> str:
    points, row = question.points, question.law
    kinds = {point.visual_tokens for point in points.points}
    head = (
        f"{points.task}: {len(points.points)} runs of {len(points.sizes)} LLM sizes at "
        f"{len(kinds)} V"
    )
    if row["ratio"] is None:
        return f"{head}: no alpha/beta."
    text = f"{head}: alpha/beta {row['ratio']:.3g}{_ends(row['ratio_low'], row['ratio_high'])}"
    if found.conservative and found.conservative[0] is not None:
        text += f", conservatively{_ends(*found.conservative)}"
    return f"{text}; best V at Q = {question.text_tokens:g}: {_best(found)}."


def _best(found: Plan) -> str:
    return "none" if found.best_v is None else f"{found.best_v:.3g}"


def _noise(question: Question, found: Plan) -> str:
    noise = found.noise
    how = "stated" if question.run_sd is not None else "the residuals within LLMs"
    text = f"Noise assumed: {noise.run_sd:.2g} a run ({how}), {noise.llm_sd:.2g} an LLM"
    if question.llm_sd is not None:
        text += " (stated)"
    elif len(question.points.sizes) < 3:
        text += " (nothing to learn it from: as a run's; state it with --llm-sd)"
    else:
        text += " (median-unbiased from the mean squares)"
    if not _repeated(question):
        text += "; no cell was run twice, so a run's noise and a lack of fit are not told apart"
    return f"{text}."


def _repeated(question: Question) -> bool:
    return max(Counter(point[:2] for point in question.points.points).values()) > 1


def _pool(question: Question, found: Plan) -> list[str]:
    count = len(question.candidates)
    how = "rated one by one"
    if not question.each and count > 1:
        how = "each step tries every run"
        how += " and every pair"
        how += "" if found.pairs else " of one level (the pool is too large for all)"
    lines = [f"{count} candidate run{'s' * (count != 1)}, {how}."]
    other = sorted({" ".join(filter(None, one.level)) for one in question.candidates} - {""})
    if other:
        names = ", ".join(other) if len(other) < _NAMED else f"{len(other)} other families"
        lines.append(
            f"Not of the points, so each with a level of its own: {names}. Only what differs "
            "between the runs of one tells the exponents."
        )
    if question.points.families:
        sizes = sorted({one.llm for one in question.candidates if _is_bare(one)})
        family = " and ".join(question.points.families)
        if sizes:
            lines.append(
                f"{', '.join(sizes)}: a size alone, taken for an LLM of {family}; one of another "
                "family tells less (name it, and its level is its own)."
            )
    if not found.forms_fit:
        lines.append(f"{' and '.join(question.forms)} do not both fit the points: no sigma.")
    return lines


def _is_bare(one: Candidate) -> bool:
    """Whether nobody says what LLM it is, beyond its size."""
    return one.family is None and one.level == OWN_LEVEL


def _path(question: Question, found: Plan) -> str:
    last = found.rows[-1]
    runs, hours = len(found.rows), last["gpu_hours_total"]
    text = (
        f"{runs} run{'s' * (runs != 1)} for {hours:.3g} of {question.hours:g} GPU-hours: "
        f"{question.goal.title}{_ends(found.now.low, found.now.high)} -> expected"
        f"{_ends(last['after_low'], last['after_high'])}"
    )
    if last["shrinkage_total"] is not None:
        text += f" (narrower by {last['shrinkage_total']:.0%})"
    if last["sigma_total"] is not None:
        text += f"; {' and '.join(question.forms)} told apart by {last['sigma_total']:.2g} sigma"
    return f"{text}."


def _each(question: Question, found: Plan) -> str:
    first = found.rows[0]
    what = f"{first['shrinkage'] or 0:.1%} of the interval's width"
    if question.goal.kind == DISCRIMINATE:
        what = f"{first['sigma']:.2g} sigma"
    return (
        f"Most for its hours, alone: {first['llm']} with V = {first['visual_tokens']}, {what} for "
        f"{first['gpu_hours']:.3g} GPU-hours."
    )


def _stop(question: Question, found: Plan) -> list[str]:
    """The stop rule: whether another ratio would change what V costs."""
    if question.goal.kind == DISCRIMINATE:
        return _when_told(question, found.rows)
    if found.regret is None:
        return []
    limit = f"{100 * question.stop:g}%"
    if found.regret >= question.stop:
        return [_until(question, found, limit)]
    low, high = found.conservative or (None, None)
    head = (
        f"Stop: wherever alpha/beta lies in{_ends(low, high)}, V = {_best(found)} wastes at most "
        f"{found.regret:.1%} of the FLOPs (2 N (Q + V), equal error), less than {limit}. For the "
        "choice of V these runs would narrow a number that no decision waits for."
    )
    if question.goal.kind == "predict":
        return [head.replace("Stop: w", "For V alone you could stop: w")]
    return [head, "Worth more than them:", *(f"  - {line}" for line in _instead(question, found))]


def _until(question: Question, found: Plan, limit: str) -> str:
    text = f"Worst-case regret: the best V may waste {found.regret:.1%} of the FLOPs"
    low, high = found.conservative or (None, None)
    if low is None or high is None:
        return f"{text}, as the data do not bound alpha/beta: go on until it is below {limit}."
    if question.each:
        return f"{text}; go on until it is below {limit}."
    for row in found.rows:
        if row["regret"] is not None and row["regret"] < question.stop:
            return (
                f"{text}; expected below {limit} after step {row['step']} "
                f"({row['gpu_hours_total']:.3g} GPU-hours): stop there if it is."
            )
    return f"{text}, expected {found.rows[-1]['regret']:.1%} after this plan; {limit} is enough."


def _instead(question: Question, found: Plan) -> list[str]:
    lines = []
    if not _repeated(question):
        cheapest = _cheapest_repeat(question)
        which = ""
        if cheapest is not None:
            which = (
                f", such as {cheapest.llm} with V = {cheapest.visual_tokens} "
                f"({cheapest.hours:.3g} GPU-hours each)"
            )
        lines.append(
            f"first, two repeats of one cheap cell{which}: the first measure of a run's noise"
        )
    lines.append(f"the form of the law: --goal {DISCRIMINATE}{_best_sigma(question, found)}")
    lines.append("the mix of tasks: a law a task or a benchmark (vtc fit --by benchmark)")
    lines.append(
        "another family of LLMs, two sizes at least: its level is its own (vtc fit --by family)"
    )
    return lines


def _cheapest_repeat(question: Question) -> Candidate | None:
    there = {point[:2] for point in question.points.points}
    known = [
        one
        for one in question.candidates
        if one.level == OWN_LEVEL and (one.n_params, one.visual_tokens) in there
    ]
    return min(known, key=lambda one: one.hours, default=None)


def _marks(found: Plan) -> list[str]:
    """What marks behind an LLM's name mean, where rows have them."""
    marks = []
    if any(row["extrapolates"] for row in found.rows):
        marks.append("*: N or V outside what was measured")
    if any(row["with_next"] for row in found.rows):
        marks.append("+: chosen for what it tells with the next step")
    return [f"{'; '.join(marks)}."] if marks else []


def _best_sigma(question: Question, found: Plan) -> str:
    told = [row for row in found.rows if row["sigma"] is not None]
    if not told:
        return ""
    best = max(told, key=lambda row: row["sigma"])
    return (
        f" (of these runs {best['llm']} with V = {best['visual_tokens']} tells "
        f"{' and '.join(question.forms)} apart best, by {best['sigma']:.2g} sigma)"
    )


def _when_told(question: Question, rows: Sequence[dict[str, Any]]) -> list[str]:
    if question.each:
        return []
    first, second = question.forms
    for row in rows:
        if row["sigma_total"] >= _TOLD:
            return [
                f"{first} and {second} are expected {_TOLD:g} sigma apart after step {row['step']} "
                f"({row['gpu_hours_total']:.3g} GPU-hours)."
            ]
    return [f"This plan does not tell {first} from {second} by {_TOLD:g} sigma."]


def _ends(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return " [no interval]"
    least = "0" if low is None else f"{low:.4g}"
    return f" [{least}, {'no bound' if high is None else f'{high:.4g}'}]"
