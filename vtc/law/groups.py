"""Laws of the groups of a task: apart or sharing exponents, drawn to their mean, or left out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vtc.errors import InputError, NoAnswerError
from vtc.law import shrinkage
from vtc.law.estimate import estimate
from vtc.law.intervals import jackknife
from vtc.law.items import Images
from vtc.law.points import MIN_POINTS, Points
from vtc.law.rows import Settings, arrays
from vtc.law.shared_rows import refuse_lone, shared_rows
from vtc.law.varpro import fit_many

Row = dict[str, Any]


def group_rows(
    groups: Sequence[Points],
    settings: Settings,
    share: str | None,
    images: Images | None,
    tell: Callable[[str], None],
) -> list[Row | None]:
    """A row of the law table for each group of one task, in their order.

    None for a group whose points tell no law; `tell` hears why, and the others are fitted without
    it. Raises InputError if there is but one group.
    """
    first = groups[0]
    if len(groups) < 2:
        raise InputError(
            f"task '{first.task}' has one {first.by}, '{first.group}'; --by {first.by} needs two "
            "or more"
        )
    rows: list[Row | None] = [None] * len(groups)
    usable = []
    for index, points in enumerate(groups):
        try:
            refuse_few(points)
            if share is None:
                rows[index] = estimate(points, settings, images)
            else:
                refuse_lone(points, share)
            usable.append(index)
        except NoAnswerError as error:
            tell(str(error))
    if share is None:
        _add_shrunk([row for row in rows if row is not None], [groups[at] for at in usable])
        return rows
    try:
        for index, row in zip(
            usable, shared_rows([groups[at] for at in usable], settings, share), strict=True
        ):
            rows[index] = row
    except NoAnswerError as error:
        tell(str(error))
    return rows


def refuse_few(points: Points) -> None:
    """Raise NoAnswerError for a group of fewer points than a law needs."""
    count = len(points.points)
    if count < MIN_POINTS:
        raise NoAnswerError(
            f"no law for {points.title}: it has {count} point{'s' * (count != 1)} (runs); a law "
            f"needs at least {MIN_POINTS}"
        )


def _add_shrunk(rows: list[Row], groups: Sequence[Points]) -> None:
    """Fill the shrunken exponents, if there are enough groups whose exponents are known at all."""
    known = []
    for row, points in zip(rows, groups, strict=True):
        if row["alpha"] is None or "exponents_not_identified" in row["flags"]:
            continue
        doubt = shrinkage.covariance(row, points)
        if doubt is not None and np.isfinite(doubt).all():
            known.append((row, doubt))
    if len(known) < shrinkage.MIN_GROUPS:
        return
    exponents = np.array([(row["alpha"], row["beta"]) for row, _ in known])
    found = shrinkage.shrink(exponents, np.array([doubt for _, doubt in known]))
    for (row, _), (alpha, beta) in zip(known, found.exponents.tolist(), strict=True):
        row["alpha_shrunk"], row["beta_shrunk"] = alpha, beta
        row["ratio_shrunk"] = alpha / beta if alpha > 0 and beta > 0 else None
        row["alpha_between"], row["beta_between"] = np.sqrt(np.diag(found.between)).tolist()


def add_jackknife(
    whole: Row,
    rows: Mapping[str, Row | None],
    table: Sequence[Mapping[str, Any]],
    read: Callable[[Sequence[Mapping[str, Any]]], Points],
    level: float,
) -> None:
    """The ratio of the task's mean without each benchmark, and the jackknife interval over them.

    `rows` are those of the benchmarks by name, None of one without a law of its own. `read` makes
    points of the rows that are left of the `table`, which holds this task alone. On
    ln(alpha / beta), t with (benchmarks - 1) degrees of freedom. Nothing if a ratio is missing, or
    below three benchmarks.
    """
    if whole["ratio"] is None or len(rows) < 3:
        return
    ratios = []
    for name in rows:
        points = read([one for one in table if str(one.get("benchmark")) != name])
        fit = fit_many(*arrays(points)[:2], arrays(points)[2][None])
        if not (fit.alpha[0] > 0 and fit.beta[0] > 0 and np.isfinite(fit.sse[0])):
            return
        ratios.append(float(fit.alpha[0] / fit.beta[0]))
    for row, ratio in zip(rows.values(), ratios, strict=True):
        if row is not None:
            row["ratio_without_group"] = ratio
    ends = jackknife(whole["ratio"], ratios, level)
    whole["ratio_jackknife_groups_low"], whole["ratio_jackknife_groups_high"] = ends


def of_task(table: Sequence[Mapping[str, Any]], task: str) -> list[Mapping[str, Any]]:
    """The rows of one task; of a table without tasks, all."""
    if any(row.get("task") is not None for row in table):
        return [row for row in table if row.get("task") == task]
    return list(table)
