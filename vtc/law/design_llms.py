"""The LLMs of candidate runs: named or as bare sizes, counted as the points count N."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vtc.catalog import llms
from vtc.catalog.llms import LLM
from vtc.errors import InputError
from vtc.law.cells import CONVENTIONS
from vtc.law.points import Points
from vtc.tables.quantity import format_count, parse_quantity

# A size written with three digits is the one that was measured.
_ROUNDED = 0.005
_FEWEST = 1000


class Sized(NamedTuple):
    """An LLM of a candidate: `n_params` as the points count, `nominal` as costs do.

    `source` is a name that the catalog knows or a folder, None of a bare size. `other` is its
    family where that is known not to be one of the points.
    """

    name: str
    n_params: int
    nominal: float
    source: str | None = None
    family: str | None = None
    other: str | None = None


def sized(text: str, points: Points, flag: str = "--sizes") -> Sized:
    """The LLM of a name, a folder with a config.json, or a size such as 0.36b.

    Raises InputError for a size that counts N in another way than the points.
    """
    found = llms.find(text)
    if found is not None:
        return _named(found, points, flag)
    if Path(text).is_dir():
        shape = llms.shape(text)
        own = {"non-embedding": shape.n_params - shape.n_embedding}
        count = own.get(points.convention, shape.n_params)
        return Sized(Path(text).name, _snapped(count, points), shape.n_params, text)
    try:
        count = parse_quantity(text)
    except ValueError:
        raise InputError(
            f"{flag}: '{text}' is no size such as 0.36b, no folder, and no LLM of the catalog "
            "(see `vtc catalog llms`)"
        ) from None
    if count < _FEWEST:
        raise InputError(f"{flag}: '{text}' is no size of an LLM; write 0.36b for 0.36 billion")
    return bare(round(count), points, flag)


def bare(count: int, points: Points, flag: str = "--sizes") -> Sized:
    """The LLM of a size: of the catalog where the points' family has one, else a number alone."""
    count = _snapped(count, points)
    same = _of_families(points)
    for llm in same:
        if _count(llm, points.convention) == count:
            return _named(llm, points, flag)
    if count not in points.sizes:
        for llm in same:
            _refuse_other_count(llm, count, points, flag)
    return Sized(format_count(count), count, count)


def default_llms(points: Points) -> list[Sized]:
    """The measured sizes, and all other LLMs of their family, where the catalog knows it."""
    found = {count: bare(count, points) for count in points.sizes}
    for llm in _of_families(points) if len(points.families) == 1 else ():
        own = _named(llm, points, "")
        found.setdefault(own.n_params, own)
    return sorted(found.values(), key=lambda one: one.n_params)


def check_distinct(found: Sequence[Sized], flag: str = "--sizes") -> None:
    """Raise InputError if one LLM is there twice, whatever it is called."""
    seen: dict[tuple[str | None, int], str] = {}
    for one in found:
        key = (one.other, one.n_params)
        if key in seen:
            raise InputError(
                f"{flag} names the same LLM twice: {seen[key]} and {one.name} both have "
                f"{format_count(one.n_params)} parameters"
            )
        seen[key] = one.name


def _named(llm: LLM, points: Points, flag: str) -> Sized:
    count = _count(llm, points.convention)
    if count is None:
        raise InputError(
            f"{flag}: the points count N as {points.convention}, but {llm.model} has no "
            f"{CONVENTIONS[points.convention]} in the catalog"
        )
    known = {family.lower() for family in points.families}
    other = llm.family if known and llm.family not in known else None
    n = count if other else _snapped(count, points)
    return Sized(llm.model, n, llm.n_params, llm.model, llm.family, other)


def _refuse_other_count(llm: LLM, count: int, points: Points, flag: str) -> None:
    own = _count(llm, points.convention)
    for convention in CONVENTIONS:
        other = _count(llm, convention)
        if own and other and other != own and abs(count / other - 1) < _ROUNDED:
            raise InputError(
                f"{flag}: {format_count(count)} is the {convention} count of {llm.model}, but the "
                f"points count N as {points.convention} ({format_count(own)}); write {llm.model}"
            )


def _of_families(points: Points) -> list[LLM]:
    known = {family.lower() for family in points.families}
    return [llm for llm in llms.catalog() if llm.family in known]


def _count(llm: LLM, convention: str) -> int | None:
    return getattr(llm, CONVENTIONS[convention])


def _snapped(count: int, points: Points) -> int:
    near = min(points.sizes, key=lambda size: abs(size - count))
    return near if abs(count / near - 1) < _ROUNDED else count
