"""The course of trainings: loss, gradient norm and learning rate against samples, a curve a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vtc.errors import InputError
from vtc.figures.style import looks, new_figure
from vtc.tables import specs
from vtc.tables.read import read_rows

LOG = "train_log.parquet"
_CHECKPOINT = "manifest.json"
_LABELS = {
    "lm": "loss (nats a token)",
    "align": "loss (distance to the words' embeddings;\n1: that of tokens of zeros)",
}
Rows = Sequence[Mapping[str, Any]]

# Behind some fifty rows a curve is drawn smooth, and its own course faint behind it.
SMOOTH_FROM = 50


def read_logs(places: Sequence[str]) -> dict[str, Rows]:
    """The training logs by the name of their curve: run folders, checkpoints, or log files.

    A run is called by its folder, with as many folders above as tell it from the others. Raises
    InputError for a place without a log, or a log without rows.
    """
    files = {place: _log_of(Path(place)) for place in dict.fromkeys(places)}
    logs = {place: read_rows(file, specs.TRAIN_LOG).rows for place, file in files.items()}
    return dict(zip(_names(list(logs)), logs.values(), strict=True))


def loss_label(places: Sequence[str]) -> str:
    """What the loss of the training logs is, by the objective that their footers state.

    The loss of `--objective align` is a distance of embeddings; of both kinds only "loss" is said.
    """
    kinds = {_objective(_log_of(Path(place))) for place in places}
    return _LABELS.get(kinds.pop(), _LABELS["lm"]) if len(kinds) == 1 else "loss"


def _objective(log: Path) -> str:
    settings: Any = read_rows(log, specs.TRAIN_LOG).footer.get("settings")
    if settings is None and (log.parent / _CHECKPOINT).is_file():
        # A checkpoint's log has no footer; its manifest tells what the training is.
        manifest = json.loads((log.parent / _CHECKPOINT).read_text(encoding="utf-8"))
        settings = manifest.get("identity", {}).get("settings")
    return (settings or {}).get("objective", "lm")


def _log_of(place: Path) -> Path:
    if place.is_dir():
        if (place / LOG).is_file():
            return place / LOG
        raise InputError(f"{place} holds no {LOG}; give the folder of a run or of a checkpoint")
    return place


def _names(places: list[str]) -> list[str]:
    """Each place by its last folders, as few as keep them all apart."""
    parts = [Path(place).absolute().parts[1:] for place in places]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-depth:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return places


def draw(logs: Mapping[str, Rows], label: str = _LABELS["lm"]) -> Figure:
    """The figure: loss large, gradient norm and learning rate below, all against samples seen.

    `label` says what the loss is.
    """
    figure = new_figure(8.0, 6.4)
    axes = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    for (name, rows), look in zip(logs.items(), looks(len(logs)), strict=True):
        for place, column in zip(axes, ("loss", "grad_norm", "learning_rate"), strict=True):
            _curve(place, rows, column, look, name if column == "loss" else None)
    axes[0].set_ylabel(label)
    axes[1].set_ylabel("gradient norm")
    axes[1].set_yscale("log")
    axes[2].set_ylabel("learning rate")
    axes[2].set_xlabel("samples seen")
    axes[2].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes[0].legend(fontsize="small", frameon=False)
    for place in axes:
        place.grid(alpha=0.3)
    return figure


def _curve(axes: Axes, rows: Rows, column: str, look: Mapping[str, Any], label: str | None) -> None:
    points = [(row["samples_seen"], row[column]) for row in rows if row[column] is not None]
    if not points:
        return
    samples, values = zip(*points, strict=True)
    drawn = {"color": look["color"], "linestyle": look["linestyle"]}
    if len(points) < SMOOTH_FROM or column == "learning_rate":
        marker = look["marker"] if len(points) < 3 else ""
        axes.plot(samples, values, label=label, marker=marker, **drawn)
        return
    axes.plot(samples, values, color=look["color"], alpha=0.25, linewidth=0.8)
    axes.plot(samples, _smooth(values), label=label, **drawn)


def _smooth(values: Sequence[float]) -> list[float]:
    """The mean of each value and those before it, older ones counting less, from the first on."""
    keep = 1 - 2 / (len(values) / 10 + 1)
    total = weight = 0.0
    smooth = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        smooth.append(total / weight)
    return smooth
