"""A whole fit: a table in, rows of the law table out."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from vtc.errors import InputError
from vtc.law import holdout
from vtc.law.estimate import Settings, estimate
from vtc.law.points import read_points, read_table
from vtc.tables.read import title


@dataclass(frozen=True)
class Request:
    """What to fit, how: the settings of `vtc fit`."""

    table: str
    tasks: tuple[str, ...] = ()
    convention: str = "nominal"
    method: str = "varpro"
    exponents: str | None = None
    holdout: str | None = None
    drop_suspect: bool = False
    level: float = 0.95
    text_tokens: float = 50.0
    n_draws: int = 400
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """The settings as they go into a footer."""
        return asdict(self)


def fit_table(request: Request) -> list[tuple[dict[str, Any], int]]:
    """A row of the law table for each task, and how many suspect rows were left out of it.

    Raises InputError for a table that cannot be used, NoAnswerError if no law can be fitted.
    """
    if request.exponents is not None and request.method != "varpro":
        raise InputError(f"--exponents and --method {request.method} exclude each other; give one")
    settings = Settings(
        request.method,
        request.level,
        request.n_draws,
        request.seed,
        request.text_tokens,
        parse_exponents(request.exponents),
    )
    tasks = read_points(
        read_table(request.table),
        title(request.table),
        tasks=request.tasks,
        convention=request.convention,
        drop_suspect=request.drop_suspect,
    )
    fitted = []
    for points in tasks:
        out = ()
        if request.holdout is not None:
            points, out = holdout.split(points, request.holdout)
        row = estimate(points, settings)
        if request.holdout is not None:
            row.update(holdout.assess(row, out, request.holdout))
        fitted.append((row, points.n_dropped))
    return fitted


def parse_exponents(text: str | None) -> tuple[float, float] | None:
    """(alpha, beta) of a text such as '.077/.015'; raises InputError showing the form."""
    if text is None:
        return None
    try:
        alpha, beta = (float(part) for part in text.split("/"))
    except ValueError:
        raise InputError(f"--exponents '{text}': write alpha/beta, as in .077/.015") from None
    if not (0 < alpha < math.inf and 0 < beta < math.inf):
        raise InputError(f"--exponents '{text}': both must be above zero, as in .077/.015")
    return alpha, beta
