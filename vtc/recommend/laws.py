"""The law that an answer stands on: a shipped one or a file's, of one task or a mix of several."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vtc.catalog import laws
from vtc.errors import InputError, NoAnswerError
from vtc.law.cells import CONVENTIONS
from vtc.law.power import PowerLaw, central, from_row
from vtc.law.written import read_laws
from vtc.recommend.law_faults import refuse_contradictions
from vtc.tables.read import title

_DRAWS = ("draw_k", "draw_alpha", "draw_beta", "draw_d")
_UNIT = "billions"


@dataclass(frozen=True)
class Part:
    """The law of one task, and its weight in the mix."""

    task: str
    weight: float
    row: Mapping[str, Any]
    law: PowerLaw


@dataclass(frozen=True)
class Mix:
    """The mean error over tasks, each by its own law; usually of one task alone."""

    name: str
    parts: tuple[Part, ...]

    @property
    def row(self) -> Mapping[str, Any]:
        """The row of the law table of the first task."""
        return self.parts[0].row

    @property
    def task(self) -> str:
        """The task, or the tasks with their weights."""
        if len(self.parts) == 1:
            return self.parts[0].task
        return ",".join(f"{part.task}:{part.weight:g}" for part in self.parts)

    def error(self, n_params: float, visual_tokens: float) -> float:
        """Predicted error (share in [0, 1])."""
        return sum(part.weight * part.law.error(n_params, visual_tokens) for part in self.parts)

    def errors(self, n_params: Sequence[float], visual_tokens: Sequence[int]) -> Any:
        """Predicted errors of all pairs as an array [N, V]."""
        import numpy as np

        log_n = np.log(np.asarray(n_params, dtype=float) / 1e9)[:, None]
        log_v = np.log(np.asarray(visual_tokens, dtype=float))[None]
        total = np.zeros((log_n.size, log_v.size))
        for part in self.parts:
            law = part.law
            log = math.log(law.k) - law.alpha * log_n - law.beta * log_v
            total += part.weight * (np.exp(np.minimum(log, 700.0)) + law.d)
        return total

    @cached_property
    def draws(self) -> tuple["Mix", ...]:
        """Mixes that the data admit as well; none if a law has no draws."""
        count = min(len(part.law.draws) for part in self.parts)
        return tuple(
            Mix(
                self.name,
                tuple(
                    Part(part.task, part.weight, {}, PowerLaw(*part.law.draws[number]))
                    for part in self.parts
                ),
            )
            for number in range(count)
        )

    def interval(self, n_params: float, visual_tokens: float) -> tuple[float, float] | None:
        """Central interval of the mean error at the law's own level; None without draws."""
        if not self.draws:
            return None
        level = self.row["level"] or 0.95
        if len(self.parts) == 1:
            return self.parts[0].law.interval(n_params, visual_tokens, level)
        return central([draw.error(n_params, visual_tokens) for draw in self.draws], level)

    def rival_error(self, n_params: float, visual_tokens: float) -> float | None:
        """The error by the laws' rivals c - a ln N - b ln V; None unless each law has one."""
        total, log_v = 0.0, math.log(visual_tokens)
        for part in self.parts:
            line = part.row.get("log_linear")
            if not line:
                return None
            c, a, b = line
            total += part.weight * (c - a * math.log(n_params / 1e9) - b * log_v)
        return total

    def covers(self, n_params: float, visual_tokens: float) -> bool:
        """Whether N and V lie within what every law was fitted on."""
        return all(
            row["n_params_min"] <= n_params <= row["n_params_max"]
            and row["visual_tokens_min"] <= visual_tokens <= row["visual_tokens_max"]
            for row in (part.row for part in self.parts)
        )


def of_row(name: str, row: Mapping[str, Any]) -> Mix:
    """The mix of one task alone."""
    return Mix(name, (Part(row["task"], 1.0, row, from_row(row)),))


def read_mix(
    law: str, task: str | None = None, convention: str | None = None, group: str | None = None
) -> Mix:
    """The law of `task` in a shipped law or a file, or of a mix such as reasoning:0.7,ocr:0.3.

    Of a file fitted with --by it is the whole task's, or that of a `group`.

    Raises InputError for a law that is not there or cannot weigh N against V, weights that do not
    sum to 1, and laws that count N in another way than `convention`, or than one another.
    """
    wanted = _weights(task)
    rows = read_laws(law_file(law))
    name = title(law)
    parts = []
    for one, weight in wanted.items():
        row = _row_of(rows, name, one, group)
        _check_convention(row, name, convention)
        parts.append(Part(row["task"], weight, row, from_row(row)))
    conventions = {part.row["n_convention"] for part in parts}
    if len(conventions) > 1:
        raise InputError(
            f"law {name} counts N as {' and '.join(sorted(conventions))} in the tasks of the mix; "
            "fit them with one --n"
        )
    return Mix(name, tuple(parts))


def refuse_meaningless(mix: Mix, counts: Sequence[int]) -> None:
    """Raise NoAnswerError where the law ranks LLMs the wrong way round: a larger one errs more.

    It would advise the smallest LLM whatever the budget. With one size to choose from, `counts`,
    only V is asked for, and with another task of the mix that larger LLMs serve, they are weighed.
    """
    if len(set(counts)) < 2 or any(part.row["alpha"] > 0 for part in mix.parts):
        return
    said = " and ".join(f"{part.row['task']} {part.row['alpha']:.3g}" for part in mix.parts)
    raise NoAnswerError(
        f"law {mix.name} cannot choose an LLM: by it a larger one does not lower the error (alpha: "
        f"{said}), its runs are too few or too noisy; add runs of other sizes, or name one LLM "
        "with --llm to choose V alone"
    )


def law_file(law: str) -> str | Path:
    """The file of a shipped law, or `law` itself; raises InputError if there is neither."""
    if law in laws.SHIPPED:
        return laws.path(law)
    if law != "-" and not Path(law).exists():
        known = ", ".join(laws.SHIPPED)
        raise InputError(f"--law {law} does not exist; give {known}, or a file of `vtc fit`")
    return law


def law_row(law: str, task: str | None) -> dict[str, Any]:
    """The row of a shipped law or of a law file for `task` (default: reasoning, or the only one).

    Raises InputError if the file has no such task, or a law that cannot weigh N against V.
    """
    return _row_of(read_laws(law_file(law)), title(law), task)


def _row_of(
    rows: Sequence[dict[str, Any]], law: str, task: str | None, group: str | None = None
) -> dict[str, Any]:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    chosen = task or (tasks[0] if len(tasks) == 1 else "reasoning")
    of_task = [row for row in rows if row["task"] == chosen]
    found = [row for row in of_task if row.get("group") == group]
    if of_task and len(found) != 1:
        groups = ", ".join(str(row["group"]) for row in of_task if row.get("group"))
        if group and not groups:
            raise InputError(f"law {law} has no groups: it was not fitted with --by")
        if groups:
            what = f"no group '{group}'" if group else "laws of groups alone"
            raise InputError(f"law {law}, task {chosen}: {what}; name one with --group: {groups}")
    if len(found) != 1:
        count = "no law" if not found else f"{len(found)} laws"
        raise InputError(
            f"law {law} has {count} of task '{chosen}' (it has: {', '.join(tasks)}); "
            "name one with --task"
        )
    _check_row(found[0], f"law {law}, task {chosen}", law)
    return found[0]


def _check_row(row: Mapping[str, Any], where: str, law: str) -> None:
    if row["alpha"] is None:
        raise InputError(
            f"law {law} was fitted on one LLM size, so it has no alpha and cannot weigh LLM size "
            "against visual tokens; fit it on runs of two or more sizes"
        )
    if row["k"] <= 0:
        raise InputError(f"{where}: k is {row['k']:g}; it must be above zero")
    if row["form"] != "power":
        raise InputError(f"{where}: its form is '{row['form']}'; recommend reads form power alone")
    if row["unit"] != _UNIT:
        raise InputError(
            f"{where}: N is counted in '{row['unit']}' inside k, here it must be '{_UNIT}': "
            "fit it again, or convert k"
        )
    _check_ranges(row, where)
    if len(row.get("log_linear") or (0, 0, 0)) != 3:
        raise InputError(f"{where}: log_linear must hold c, a and b, or be empty")
    counts = {name: len(row[name]) for name in _DRAWS}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(
            f"{where}: its draws are not aligned ({said}); give all four as many, or empty lists"
        )
    if any(k <= 0 for k in row["draw_k"]):
        raise InputError(f"{where}: draw_k holds a value of at most 0; every k is above zero")
    refuse_contradictions(row, where)


def _check_ranges(row: Mapping[str, Any], where: str) -> None:
    """Raise InputError for cells that no fit writes, and a hand might."""
    if not 0 <= row["d"] < 1:
        raise InputError(f"{where}: d is {row['d']:g}; an irreducible error lies in [0, 1)")
    if row["level"] is not None and not 0 < row["level"] < 1:
        raise InputError(f"{where}: level is {row['level']:g}; a coverage lies between 0 and 1")
    if row["n_convention"] not in CONVENTIONS:
        known = ", ".join(CONVENTIONS)
        raise InputError(f"{where}: n_convention is '{row['n_convention']}'; write {known}")
    for name in ("n_params", "visual_tokens"):
        low, high = row[f"{name}_min"], row[f"{name}_max"]
        if not 1 <= low <= high:
            raise InputError(
                f"{where}: {name}_min {low} and {name}_max {high} are no range of what was fitted"
            )


def _check_convention(row: Mapping[str, Any], law: str, convention: str | None) -> None:
    if convention and row["n_convention"] != convention:
        raise InputError(
            f"law {law} counts N as {row['n_convention']}, not {convention}; "
            f"fit one with `vtc fit --n {convention}`, or leave --n away"
        )


def _weights(task: str | None) -> dict[str | None, float]:
    """Tasks and weights of --task; raises InputError for what is no mix."""
    if task is None or not any(mark in task for mark in ":,"):
        return {task: 1.0}
    found: dict[str | None, float] = {}
    for part in task.split(","):
        name, _, text = part.partition(":")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not name.strip() or not 0 < weight <= 1:
            raise InputError(
                f"--task {task}: '{part}' is no TASK:WEIGHT with a weight above 0 and up to 1, "
                "such as reasoning:0.7"
            )
        if name.strip() in found:
            raise InputError(f"--task {task} names {name.strip()} twice")
        found[name.strip()] = weight
    total = sum(found.values())
    if abs(total - 1) > 1e-6:
        raise InputError(f"--task {task}: the weights sum to {total:g}; they must sum to 1")
    return found
