"""What figures of laws are drawn from: points with their law, or laws alone. No matplotlib."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtc.catalog import laws as shipped
from vtc.errors import InputError
from vtc.law import holdout
from vtc.law.estimate import Settings, estimate
from vtc.law.points import Point, Points, read_points
from vtc.law.power import PowerLaw, from_row
from vtc.law.run import Request
from vtc.law.several import read_tables
from vtc.law.written import read_laws
from vtc.recommend.laws import Mix, law_file, read_mix, refuse_meaningless

FORMATS = ("png", "svg", "pdf")


@dataclass(frozen=True)
class Panel:
    """The points of a task and the row of the law table that was fitted to them."""

    points: Points
    row: Mapping[str, Any]

    @property
    def law(self) -> PowerLaw:
        """The law; with one LLM size, N has no effect in it."""
        return from_row({**self.row, "alpha": self.row["alpha"] or 0.0})

    def held_out(self, point: Point) -> bool:
        """Whether the law was fitted without this point."""
        condition = self.row.get("holdout")
        return bool(condition) and holdout.parse(str(condition))(point)


def read(tables: str | Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """The rows of one or several tables of scores or points, and what a message calls them."""
    first, *more = (tables,) if isinstance(tables, str) else tables
    return read_tables((first, *more)), Request(first, more=tuple(more)).source


def law_panels(
    tables: str | Sequence[str],
    law: str | None,
    tasks: tuple[str, ...] = (),
    drop_suspect: bool = False,
) -> list[Panel]:
    """A panel a law of the file `law`: its task's or group's points; without it, a panel a task.

    Raises InputError if the file has no law of a task, and if the points lack a law's group.
    """
    rows, source = read(tables)
    if law is None:
        found = read_points(rows, source, tasks=tasks, drop_suspect=drop_suspect)
        return [Panel(points, estimate(points, Settings())) for points in found]
    path = shipped.path(law) if law in shipped.SHIPPED else law
    laws = read_laws(path)
    there = list(dict.fromkeys(row["task"] for row in laws))
    for task in tasks:
        if task not in there:
            raise InputError(f"{law} has no law of task '{task}'; it has {', '.join(there)}")
    panels = []
    for row in (row for task in tasks or there for row in laws if row["task"] == task):
        found = read_points(
            rows,
            source,
            tasks=(row["task"],),
            convention=row["n_convention"],
            drop_suspect=drop_suspect,
            by=None if row["group"] is None else row["by"],
        )
        own = next((points for points in found if points.group == row["group"]), None)
        if own is None:
            raise InputError(
                f"{source} has no points of {row['by']} '{row['group']}', of which {law} has a law"
            )
        panels.append(Panel(own, row))
    return panels


def law_mixes(law: str, tasks: tuple[str, ...] = (), group: str | None = None) -> list[Mix]:
    """What predicts the error of each task or mix of tasks: laws of a file, or a shipped one.

    Without tasks all of the file's. Raises InputError as `recommend` does: for laws that are not
    there, or cannot weigh N against V; NoAnswerError for those by which larger LLMs err more.
    """
    if not tasks and law != "-":
        rows = read_laws(law_file(law))
        tasks = tuple(dict.fromkeys(row["task"] for row in rows))
    if len(tasks) > 1 and law == "-":
        raise InputError("several tasks of a law on stdin: give the law as a file")
    mixes = [read_mix(law, task, None, group) for task in tasks or (None,)]
    for mix in mixes:
        refuse_meaningless(mix, (1, 2))  # Several sizes of LLM are weighed against V.
    return mixes


def file_format(out: str) -> str:
    """The figure format that a file's suffix names; raises InputError naming the choices."""
    suffix = Path(out).suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        raise InputError(f"{out}: a figure's suffix must be one of {', '.join(FORMATS)}")
    return suffix
