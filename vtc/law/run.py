"""A whole fit: a table in, rows of the law table out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, NamedTuple

from vtc.errors import InputError, NoAnswerError
from vtc.law import foretell, holdout
from vtc.law.estimate import estimate
from vtc.law.groups import add_jackknife, group_rows, of_task
from vtc.law.items import Images
from vtc.law.points import Points, read_points
from vtc.law.rows import Settings
from vtc.law.several import read_tables
from vtc.tables.read import title


@dataclass(frozen=True)
class Request:
    """What to fit, how: the settings of `vtc fit`. `more` are tables beside the first."""

    table: str
    tasks: tuple[str, ...] = ()
    convention: str = "nominal"
    method: str = "varpro"
    exponents: str | None = None
    holdout: str | None = None
    drop_suspect: bool = False
    drop_untrained: bool = False
    level: float = 0.95
    text_tokens: float = 50.0
    n_draws: int = 400
    seed: int = 0
    form: str = "power"
    at: str | None = None
    flops: float | None = None
    by: str | None = None
    share: str | None = None
    more: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tables."""
        return (self.table, *self.more)

    @property
    def source(self) -> str:
        """What a message calls them."""
        return " and ".join(map(title, self.inputs[:2])) + f" and {len(self.more) - 1} more" * (
            len(self.more) > 1
        )

    def settings(self) -> dict[str, Any]:
        """The settings as they go into a footer."""
        return asdict(self)


class Material(NamedTuple):
    """What is fitted: rows of points or scores, and what images move each score by, if known."""

    rows: Sequence[Mapping[str, Any]]
    images: Images | None = None


class Fitted(NamedTuple):
    """A row of the law table, the points it is of, and how many suspect rows were left out."""

    row: dict[str, Any]
    points: Points
    n_dropped: int


Tell = Callable[[str], None]
"""Hears why a task or group has no law."""


def fit_table(
    request: Request, material: Material | None = None
) -> list[tuple[dict[str, Any], int]]:
    """A row of the law table for each task and group, and how many suspect rows were left out.

    Raises as `fit_laws`.
    """
    return [(law.row, law.n_dropped) for law in fit_laws(request, material)]


def fit_laws(
    request: Request, material: Material | None = None, tell: Tell | None = None
) -> list[Fitted]:
    """The law of each task and group; `tell` hears of those whose points tell none.

    `material` is what stands in the request's table, where it is read already.
    Raises InputError for a table that cannot be used, NoAnswerError if no law can be fitted.
    """
    _refuse_contradictions(request)
    material = material or Material(read_tables(request.inputs))
    settings, lacking = _settings(request), []
    found: list[Fitted] = []
    if request.by is None:
        for points in _read(request, material):
            try:
                found.append(_fit_one(points, request, settings, material))
            except NoAnswerError as error:
                lacking.append(str(error))
    else:
        every = _read(request, material, request.by)
        for task, own in groupby(every, lambda points: points.task):
            found += _fit_groups(task, list(own), request, settings, material, lacking.append)
    return _told(found, lacking, tell)


def _told(found: list[Any], lacking: list[str], tell: Tell | None) -> list[Any]:
    """What was found, the reasons for what was not told; raises them if nothing was found."""
    reasons = list(dict.fromkeys(lacking))
    if not found and reasons:
        more = len(reasons) - 1
        raise NoAnswerError(reasons[0] + f" (and {more} more without a law)" * bool(more))
    if tell is not None:
        for reason in reasons:
            tell(reason[0].upper() + reason[1:])
    return found


def _settings(request: Request) -> Settings:
    return Settings(
        request.method,
        request.level,
        request.n_draws,
        request.seed,
        request.text_tokens,
        parse_exponents(request.exponents),
    )


def _refuse_contradictions(request: Request) -> None:
    for flag, value in (("--at", request.at), ("--flops", request.flops)):
        if value is not None:
            raise InputError(f"{flag} compares forms; give --form all, or a form, with it")
    if request.exponents is not None and request.method != "varpro":
        raise InputError(f"--exponents and --method {request.method} exclude each other; give one")
    if request.share is not None and request.by is None:
        raise InputError(
            f"--share {request.share} says what groups share; name their column with --by"
        )
    if request.share is not None and (request.exponents or request.method != "varpro"):
        flag = "--exponents" if request.exponents else f"--method {request.method}"
        raise InputError(f"{flag} and --share exclude each other; give one")


def _fit_one(points: Points, request: Request, settings: Settings, material: Material) -> Fitted:
    kept, out = _split(points, request)
    row = estimate(kept, settings, material.images)
    return Fitted(_assessed(row, kept, out, request, settings), kept, points.n_dropped)


def _split(points: Points, request: Request) -> tuple[Points, tuple]:
    if request.holdout is None:
        return points, ()
    return holdout.split(points, request.holdout)


def _assessed(
    row: dict[str, Any], kept: Points, out: tuple, request: Request, settings: Settings
) -> dict[str, Any]:
    if request.holdout is not None:
        row.update(holdout.assess(row, out, request.holdout))
        row.update(foretell.foretell(row, kept, out, settings))
    return row


def _fit_groups(
    task: str,
    groups: list[Points],
    request: Request,
    settings: Settings,
    material: Material,
    tell: Tell,
) -> list[Fitted]:
    """The rows of a task's groups; of benchmarks, that of the task itself before them."""
    parts = [_split(points, request) for points in groups]
    kept = [points for points, _ in parts]
    rows = group_rows(kept, settings, request.share, material.images, tell)
    found = [
        Fitted(_assessed(row, kept, out, request, settings), kept, points.n_dropped)
        for row, points, (kept, out) in zip(rows, groups, parts, strict=True)
        if row is not None
    ]
    if request.by != "benchmark":
        return found
    table = of_task(material.rows, task)

    def read(rows: Sequence[Mapping[str, Any]]) -> Points:
        [points] = read_points(
            rows,
            request.source,
            tasks=(task,),
            convention=request.convention,
            drop_suspect=request.drop_suspect,
            drop_untrained=request.drop_untrained,
        )
        return _split(points, request)[0]

    [points] = _read(request, Material(table), tasks=(task,))
    try:
        whole = _fit_one(points, request, settings, material)
    except NoAnswerError as error:
        tell(str(error))
        return found
    by_name = {str(points.group): row for points, row in zip(groups, rows, strict=True)}
    add_jackknife(whole.row, by_name, table, read, request.level)
    if request.share is None:
        own = [law.row for law in found]
        for name in ("alpha_between", "beta_between"):
            whole.row[name] = next((row[name] for row in own if row[name] is not None), None)
    return [whole, *found]


def compare_table(
    request: Request, material: Material | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
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
        ("--by", request.by is not None),
        ("--share", request.share is not None),
    ):
        if given:
            raise InputError(f"{flag} is for the power law; leave out --form {request.form} or it")
    names = tuple(FORMS) if request.form == "all" else (request.form,)
    at = compare.parse_at(request.at)
    interest = compare.Interest(at, request.flops, request.text_tokens)
    rows, lines, lacking = [], [], []
    for points in _read(request, material or Material(read_tables(request.inputs))):
        try:
            found = compare.compare(points, names, interest)
        except NoAnswerError as error:
            lacking.append(str(error))
            continue
        rows += found
        lines += compare.describe(found)
        if "power" in names:
            lines.append(compare.certificate(points))
        if points.n_dropped:
            lines.append(f"  {points.n_dropped} suspect rows were left out.")
    return _told(rows, lacking, lines.append), lines


def _read(
    request: Request,
    material: Material,
    by: str | None = None,
    tasks: tuple[str, ...] | None = None,
) -> list[Points]:
    return read_points(
        material.rows,
        request.source,
        tasks=request.tasks if tasks is None else tasks,
        convention=request.convention,
        drop_suspect=request.drop_suspect,
        drop_untrained=request.drop_untrained,
        by=by,
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
