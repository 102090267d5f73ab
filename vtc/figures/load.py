"""What a figure of laws is drawn from: a table's points, with a law file or a fit of them."""

from vtc.errors import InputError
from vtc.figures.law import Panel
from vtc.law.estimate import Settings, estimate
from vtc.law.points import read_points
from vtc.tables import specs
from vtc.tables.read import read_rows


def law_panels(
    table: str, law: str | None, tasks: tuple[str, ...] = (), drop_suspect: bool = False
) -> list[Panel]:
    """A panel a task: its points, and its law of the file `law`, else fitted to the points here.

    Raises InputError if the file has no law of a task.
    """
    rows = read_rows(table).rows
    source = "stdin" if table == "-" else table
    if law is None:
        found = read_points(rows, source, tasks=tasks, drop_suspect=drop_suspect)
        return [Panel(points, estimate(points, Settings())) for points in found]
    laws = {row["task"]: row for row in read_rows(law, specs.LAW).rows}
    panels = []
    for task in tasks or tuple(laws):
        if task not in laws:
            raise InputError(f"{law} has no law of task '{task}'; it has {', '.join(laws)}")
        convention = laws[task]["n_convention"]
        [points] = read_points(
            rows, source, tasks=(task,), convention=convention, drop_suspect=drop_suspect
        )
        panels.append(Panel(points, laws[task]))
    return panels
