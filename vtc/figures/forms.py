"""Forms of the law beside one another: what each says within the points, and beyond them.

Inside the data the forms of docs/laws.md can hardly be told apart; what they say of larger LLMs
and more tokens is where they part.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vtc.errors import InputError, NoAnswerError
from vtc.figures.axes import Name, bare, counts_scale, plain, size_said, tokens_scale, write_names
from vtc.figures.panel import read
from vtc.figures.style import looks, new_figure
from vtc.law.estimate import arrays, refuse_hopeless
from vtc.law.forms import FORMS
from vtc.law.points import Points, read_points
from vtc.law.power import BILLION
from vtc.tables import specs
from vtc.tables.read import read_rows

STEPS = 120
_FARTHER_N, _FARTHER_V = 10.0, 4.0
"""How far beyond the largest N and the most V the curves go."""

Array = np.ndarray


class Form(NamedTuple):
    """A fitted form; `note` says how it ranks, where that is known."""

    name: str
    values: Array
    rmse: float
    note: str = ""

    def errors(self, n_params: Array | float, visual_tokens: Array | float) -> Array:
        """Predicted errors; some forms leave [0, 1] far from the data."""
        log_n = np.log(np.asarray(n_params, dtype=float) / BILLION)
        log_n, log_v = np.broadcast_arrays(log_n, np.log(np.asarray(visual_tokens, dtype=float)))
        return FORMS[self.name].predict(self.values, log_n, log_v)


def read_forms(
    tables: str | Sequence[str], forms: str | None, tasks: tuple[str, ...], drop_suspect: bool
) -> list[tuple[Points, list[Form]]]:
    """The points of each task and its forms: those of a forms table, or all of them fitted here.

    Raises InputError for tables that do not belong together, NoAnswerError for hopeless points.
    """
    table_rows, source = read(tables)
    points = read_points(table_rows, source, tasks=tasks, drop_suspect=drop_suspect)
    if forms is None:
        return [(own, fitted(own)) for own in points]
    rows = read_rows(forms, specs.FORMS).rows
    found = []
    for own in points:
        mine = [row for row in rows if row["task"] == own.task]
        if not mine:
            raise InputError(f"--forms {forms} has no forms of {own.title}")
        if any(row["data_sha"] != own.sha() for row in mine):
            raise InputError(
                f"--forms {forms}: its forms of {own.title} were fitted to other points than "
                f"{source} holds; fit them again, or give --drop-suspect as there"
            )
        found.append((own, [_of_row(row) for row in mine]))
    return found


def _of_row(row: Mapping[str, Any]) -> Form:
    gap = "" if row["aicc_gap"] is None else f"AICc +{row['aicc_gap']:.1f}"
    return Form(row["form"], np.array(row["values"]), row["rmse"], gap)


def fitted(points: Points) -> list[Form]:
    """All forms fitted to the points, the smallest rmse first; those that no member fits left out.

    Raises NoAnswerError with one LLM size, or where N and V cannot be told apart.
    """
    log_n, log_v, errors = arrays(points)
    refuse_hopeless(points, log_n, log_v, errors)
    if len(points.sizes) < 2:
        raise NoAnswerError(
            f"no comparison for {points.title}: one LLM size cannot tell forms of a law in N and V "
            "apart; add runs of another size"
        )
    found = []
    for form in FORMS.values():
        values = form.fit(log_n, log_v, errors, None)
        if values is not None and np.isfinite(values).all():
            gaps = form.predict(values, log_n, log_v) - errors
            found.append(Form(form.name, values, float(np.sqrt((gaps @ gaps) / len(gaps)))))
    return sorted(found, key=lambda one: one.rmse)


def draw(tasks: Sequence[tuple[Points, Sequence[Form]]]) -> Figure:
    """The figure: a row a task; error against V, and against N, measured ranges on white."""
    figure = new_figure(11.4, 4.3 * len(tasks) + 0.7)
    axes = figure.subplots(len(tasks), 2, squeeze=False)
    # A form has one look in all panels.
    every = list(dict.fromkeys(form.name for _, forms in tasks for form in forms))
    shown = dict(zip(every, looks(len(every)), strict=True))
    names = {}
    for (left, right), (points, forms) in zip(axes, tasks, strict=True):
        names[left] = _against_tokens(left, points, forms, shown)
        names[right] = _against_sizes(right, points, forms, shown)
        left.set_ylabel("error (1 - score)")
        for place in (left, right):
            bare(place)
        left.legend(fontsize=7, frameon=False, loc="best", handlelength=3.5)
    write_names(figure, names)
    return figure


def _against_tokens(
    axes: Axes, points: Points, forms: Sequence[Form], shown: Mapping[str, Any]
) -> list[Name]:
    """Error against V for the smallest and the largest LLM, and one twice as large."""
    tokens = sorted({p.visual_tokens for p in points.points})
    v = np.geomspace(tokens[0], _FARTHER_V * tokens[-1], STEPS)
    sizes = [points.sizes[0], points.sizes[-1], 2 * points.sizes[-1]]
    for form in forms:
        for n in sizes:
            named = form if n == sizes[0] else None
            beyond = n > points.sizes[-1]
            _curve(axes, v, form.errors(n, v), shown[form.name], named, pale=beyond)
    first, last = ([_median(forms, n, end) for n in sizes] for end in (v[0], v[-1]))
    names = [Name(v[-1], y, size_said(n)) for n, y in zip(sizes, last, strict=True)]
    _points(axes, [(p.visual_tokens, p.error) for p in points.points if p.n_params in sizes])
    tokens_scale(axes, "x", [*tokens, v[-1]])
    axes.axvspan(tokens[-1], v[-1], color="0.94", zorder=0)
    _limits(axes, points, [*first, *last])
    axes.set_xlabel("visual tokens V")
    axes.set_title(
        plain(f"{points.task} (grey ground, pale curves: beyond the points)"),
        fontsize=10,
        loc="left",
    )
    return names


def _against_sizes(
    axes: Axes, points: Points, forms: Sequence[Form], shown: Mapping[str, Any]
) -> list[Name]:
    """Error against N at the fewest and the most V."""
    tokens = sorted({p.visual_tokens for p in points.points})
    sizes = points.sizes
    n = np.geomspace(sizes[0], _FARTHER_N * sizes[-1], STEPS)
    ends = (tokens[0], tokens[-1])
    for form in forms:
        for v in ends:
            _curve(axes, n, form.errors(n, v), shown[form.name], None)
    last = [_median(forms, n[-1], v) for v in ends]
    names = [Name(n[-1], y, f"V = {v}") for v, y in zip(ends, last, strict=True)]
    _points(axes, [(p.n_params, p.error) for p in points.points if p.visual_tokens in ends])
    counts_scale(axes, n[0], n[-1])
    axes.axvspan(sizes[-1], n[-1], color="0.94", zorder=0)
    _limits(axes, points, last)
    axes.set_xlabel("LLM parameters N")
    return names


def _curve(
    axes: Axes, x: Array, errors: Array, look: Any, named: Form | None, pale: bool = False
) -> None:
    label = None
    if named is not None:
        label = f"{named.name} ({named.note or f'rmse {named.rmse:.4f}'})"
    axes.plot(x, errors, color=look["color"], linestyle=look["linestyle"], linewidth=1.4,
              alpha=0.4 if pale else 1.0, label=label, zorder=2)  # fmt: skip


def _points(axes: Axes, pairs: Sequence[tuple[float, float]]) -> None:
    axes.plot(*zip(*pairs, strict=True), linestyle="none", marker="o", markersize=4.5,
              color="black", markerfacecolor="white", label="measured", zorder=4)  # fmt: skip


def _median(forms: Sequence[Form], n_params: float, visual_tokens: float) -> float:
    return float(np.median([form.errors(n_params, visual_tokens) for form in forms]))


def _limits(axes: Axes, points: Points, ends: Sequence[float]) -> None:
    """The points, and where most forms begin and end; wild ones may leave the panel."""
    errors = [*(p.error for p in points.points), *ends]
    low, high = max(min(errors), 0), min(max(errors), 1)
    room = 0.2 * max(high - low, 0.02)
    axes.set_ylim(max(low - room, -0.02), min(high + room, 1.02))
