"""From the flags of `vtc plan` to its question: points, their law, and candidate runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Flags = Mapping[str, Any]
LEVEL = 0.95


class Basis(NamedTuple):
    """The points of one task and the row of their law."""

    points: Any
    law: Mapping[str, Any]


def basis_of(tables: Sequence[str], law: str | None, flags: Flags) -> Basis:
    """The points of tables, and their law: fitted, or read and held against them.

    Raises InputError if a law was not fitted to these points.
    """
    from vtc.commands.fit import material_of
    from vtc.law.points import read_points
    from vtc.law.rows import Settings
    from vtc.tables.read import title

    rows, name = material_of(tables).rows, ", ".join(map(title, tables))
    task = _task(rows, flags["task"])
    given = None if law is None else _law_row(law, task)
    convention = flags["convention"] or (given["n_convention"] if given else "nominal")
    if given:
        _check_law(given, law, convention, flags["level"])

    def read(drop_suspect: bool, drop_untrained: bool) -> Any:
        [points] = read_points(
            rows,
            name,
            tasks=(task,) if task else (),
            convention=convention,
            drop_suspect=drop_suspect,
            drop_untrained=drop_untrained,
        )
        return points

    own = {name: flags[name] for name in ("drop_suspect", "drop_untrained")}
    if given is not None:
        return Basis(_points_of(given, read, own, law, name), given)
    from vtc.law.estimate import estimate

    points = read(**own)
    settings = Settings(level=flags["level"] or LEVEL, n_draws=0, text_tokens=flags["text_tokens"])
    return Basis(points, estimate(points, settings))


def check_goal(goal: Any, text_tokens: float) -> None:
    """Raise InputError for V* without text, which is 0 whatever alpha/beta is."""
    from vtc.errors import InputError

    if goal.kind == "vstar" and not text_tokens:
        raise InputError(
            "--goal vstar with --q 0: without text V* is 0 whatever alpha/beta; take --goal ratio"
        )


def check_piped(tables: Sequence[str], law: str | None, candidates: str | None) -> None:
    """Raise InputError if two tables are asked of stdin."""
    from vtc.errors import InputError

    named = [("TABLE", table) for table in tables]
    named += [("--law", law or ""), ("--candidates", candidates or "")]
    piped = [name for name, path in named if path == "-"]
    if len(piped) > 1:
        raise InputError(
            f"{' and '.join(piped[:2])} cannot both be stdin; give one of them as a file"
        )


def tables_of(tables: Sequence[str], law: str | None) -> tuple[str, ...]:
    """The tables given, else those that a law's file says it was fitted to, else the published.

    Raises InputError for a law that does not say.
    """
    from vtc.catalog.laws import SHIPPED
    from vtc.catalog.measurements import PUBLISHED
    from vtc.errors import InputError
    from vtc.recommend.laws import law_file
    from vtc.tables.read import read_rows

    if tables:
        return tuple(tables)
    if law is None or law in SHIPPED:
        return (str(PUBLISHED),)
    inputs = [] if law == "-" else read_rows(law_file(law)).footer.get("inputs") or []
    found = tuple(one["path"] for one in inputs)
    if not (found and all(Path(one).is_file() for one in found)):
        raise InputError(f"--law {law} does not say where its points are; give their table too")
    return found


def _task(rows: Sequence[Mapping[str, Any]], task: str | None) -> str | None:
    """The task asked for, or the only one, or reasoning."""
    from vtc.errors import InputError

    tasks = list(dict.fromkeys(row["task"] for row in rows if row.get("task") is not None))
    if task or len(tasks) < 2:
        return task or (tasks[0] if tasks else None)
    if "reasoning" not in tasks:
        raise InputError(f"several tasks ({', '.join(tasks)}); name one with --task")
    return "reasoning"


def _law_row(law: str, task: str | None) -> Mapping[str, Any]:
    from vtc.errors import InputError
    from vtc.recommend.laws import law_row

    row = law_row(law, task)
    if row["method"] != "varpro":
        raise InputError(
            f"--law {law} was made by {row['method']} and has no intervals to narrow; give one of "
            "`vtc fit` with its default method, or leave out --law"
        )
    if row["by"] is not None:
        raise InputError(f"--law {law} is of groups (--by {row['by']}); give one of a whole task")
    return row


def _check_law(row: Mapping[str, Any], law: str | None, convention: str, level: Any) -> None:
    from vtc.errors import InputError

    if row["n_convention"] != convention:
        raise InputError(
            f"--law {law} counts N as {row['n_convention']}, not {convention}; leave out --n"
        )
    if level is not None and row["level"] != level:
        raise InputError(f"--law {law} has intervals at {row['level']:g}; leave out --level")


def _points_of(row: Mapping[str, Any], read: Any, own: Flags, law: Any, table: str) -> Any:
    """The points that a law was fitted to, whichever rows it left out."""
    from vtc.errors import InputError
    from vtc.law.holdout import split

    for suspect in (own["drop_suspect"], True):
        for untrained in (own["drop_untrained"], True):
            points = read(drop_suspect=suspect, drop_untrained=untrained)
            if row["holdout"]:
                points = split(points, row["holdout"])[0]
            if points.sha() == row["data_sha"]:
                return points
    raise InputError(
        f"--law {law} was fitted to {row['n_points']} points of task {row['task']} that are not "
        f"those of {table}; give the table it was fitted to, or leave out --law"
    )


def candidates_of(flags: Flags, points: Any, hours: Any) -> list[Any]:
    """The candidate runs: of a table, or every LLM at every V under every compressor.

    `hours` reckons what a row takes (`plan_hours.Hours`).
    """
    from vtc.errors import InputError
    from vtc.law.design_pool import Candidate
    from vtc.law.design_table import read_candidates

    if flags["candidates"]:
        for name in ("sizes", "tokens", "compressors", "seeds"):
            if flags[name]:
                raise InputError(f"--candidates and --{name} exclude each other; give one")
        wanted = read_candidates(flags["candidates"], points)
    else:
        wanted = _product(flags, points)
    _check_names(points, wanted)
    own = _own_compressors(points, [one.compressor for one in wanted])
    _check_tokens(flags, wanted)
    found, left_out = [], []
    for one in wanted:
        flops, reckoned = None, one.hours
        if reckoned is None:
            flops, reckoned, fits = hours.of(one.llm, one.visual_tokens, one.compressor)
            if not fits:
                left_out.append(one.llm.name)
                continue
        found.append(
            Candidate(
                one.llm.name,
                one.llm.n_params,
                one.visual_tokens,
                reckoned,
                flops,
                one.compressor,
                one.llm.family,
                one.seeds,
                (one.llm.other or "", "" if one.compressor in own else str(one.compressor)),
            )
        )
    _say_left_out(left_out, len(found), hours.gpu)
    return found


def _say_left_out(names: Sequence[str], n_left: int, gpu: str) -> None:
    """Name the LLMs whose trainings a GPU's memory does not hold; refuse if none is left."""
    from vtc import console
    from vtc.errors import NoAnswerError

    if not names:
        return
    which = ", ".join(dict.fromkeys(names))
    if not n_left:
        raise NoAnswerError(
            f"not one row of {which} fits a {gpu} as the recipe trains them; name a larger --gpu, "
            "smaller LLMs, or a recipe with lora or qlora"
        )
    console.say(
        f"Left out, since not one row fits a {gpu} as the recipe trains them: {which} "
        f"({len(names)} run{'s' * (len(names) != 1)})."
    )


def _product(flags: Flags, points: Any) -> list[Any]:
    from vtc.law.design_llms import check_distinct, default_llms, sized
    from vtc.law.design_table import Wanted

    llms = [sized(text, points) for text in flags["sizes"] or ()] or default_llms(points)
    check_distinct(llms)
    tokens = flags["tokens"] or sorted({point.visual_tokens for point in points.points})
    return [
        Wanted(llm, v, compressor, flags["seeds"] or 1)
        for compressor in flags["compressors"] or (None,)
        for llm in llms
        for v in tokens
    ]


def _own_compressors(points: Any, named: Sequence[str | None]) -> set[str | None]:
    """The compressors whose level is that of the points.

    Of points that name none: the first, unless some candidates are left to be the points' own.
    """
    from vtc import console

    own: set[str | None] = {None, *points.compressors}
    if not points.compressors and named and None not in named:
        own.add(named[0])
        if len({*named}) > 1:
            console.say(
                f"The points name no compressor; {named[0]}, named first, is taken as theirs."
            )
    return own


def _check_names(points: Any, wanted: Sequence[Any]) -> None:
    """Refuse a compressor that nobody knows, or whose runs are no points or no trainings."""
    from vtc.compress.choices import KNOWN, check_name
    from vtc.errors import InputError

    for one in wanted:
        name = one.compressor
        if name is None or (name in points.compressors and name not in KNOWN):
            continue
        check_name(name)
        if KNOWN[name].schedule is not None:
            raise InputError(
                f"{name} drops tokens inside the LLM, so its runs have no one V and are no points "
                "of a law"
            )
        if KNOWN[name].training_free and one.hours is None:
            raise InputError(
                f"{name} needs no training, so a run of it is an evaluation alone; state what that "
                "takes, in a column gpu_hours of --candidates"
            )


def _check_tokens(flags: Flags, wanted: Sequence[Any]) -> None:
    """Refuse a V that cannot be of the encoder, or of a compressor that is known."""
    from vtc.catalog import encoders
    from vtc.commands.parts import shape_of
    from vtc.compress.choices import KNOWN, listed
    from vtc.errors import InputError

    if flags["recipe"] or flags["encoder"] == "none":
        return
    grid = shape_of(encoders.shape, flags["encoder"]).grid
    every = range(1, grid[0] * grid[1] + 1)
    for one in wanted:
        known = KNOWN.get(one.compressor or "")
        choices = known.supported(grid) if known else every
        if one.visual_tokens not in choices:
            raise InputError(
                f"V = {one.visual_tokens} cannot be of {flags['encoder']} ({grid[0]} x {grid[1]} "
                f"patches){f' with {one.compressor}' if known else ''}; choose from "
                f"{listed(list(choices))}, or name the --encoder (none: no check, no cost)"
            )
