"""A whole fit: a table in, rows of the law table out."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from vtc.errors import InputError
from vtc.law import holdout
from vtc.law.estimate import Settings, estimate
from vtc.law.points import Points, read_points, read_table
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
    form: str = "power"
    at: str | None = None
    flops: float | None = None

    def settings(self) -> dict[str, Any]:
        """The settings as they go into a footer."""
        return asdict(self)


def fit_table(request: Request) -> list[tuple[dict[str, Any], int]]:
    """A row of the law table for each task, and how many suspect rows were left out of it.

    Raises InputError for a table that cannot be used, NoAnswerError if no law can be fitted.
    """
    for flag, value in (("--at", request.at), ("--flops", request.flops)):
        if value is not None:
            raise InputError(f"{flag} compares forms; give --form all, or a form, with it")
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
    fitted = []
    for points in _tasks(request):
        out = ()
        if request.holdout is not None:
            points, out = holdout.split(points, request.holdout)
        row = estimate(points, settings)
        if request.holdout is not None:
            row.update(holdout.assess(row, out, request.holdout))
        fitted.append((row, points.n_dropped))
    return fitted


def compare_table(request: Request) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of the forms table for every task, and sentences on them.

    Raises InputError for a table or settings that cannot be used, NoAnswerError if no law can be
    fitted.
    """
    from vtc.law import compare
    from vtc.law.forms import FORMS

    for flag, given in (
        ("--exponents", request.exponents is not None),
        ("--method", request.method != "varpro"),
        ("--holdout", request.holdout is not None),
    ):
        if given:
            raise InputError(f"{flag} is for the power law; leave out --form {request.form} or it")
    names = tuple(FORMS) if request.form == "all" else (request.form,)
    at = compare.parse_at(request.at)
    interest = compare.Interest(at, request.flops, request.text_tokens)
    rows, lines = [], []
    for points in _tasks(request):
        found = compare.compare(points, names, interest)
        rows += found
        lines += compare.describe(found)
        if "power" in names:
            lines.append(compare.certificate(points))
        if points.n_dropped:
            lines.append(f"  {points.n_dropped} suspect rows were left out.")
    return rows, lines


def _tasks(request: Request) -> list[Points]:
    return read_points(
        read_table(request.table),
        title(request.table),
        tasks=request.tasks,
        convention=request.convention,
        drop_suspect=request.drop_suspect,
    )


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
