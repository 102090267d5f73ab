"""A row of a table as a point: its N, V and error, each checked. Pure Python."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from vtc.catalog import llms
from vtc.errors import InputError
from vtc.tables.read import number

CONVENTIONS = {
    "nominal": "n_params",
    "total": "n_params_total",
    "non-embedding": "n_params_nonembedding",
}
_MOST_TOKENS = 10_000_000  # The longest contexts there are, of text, hold about as many.
ROUNDING = 0.006  # of an error and a score of two digits each


class Point(NamedTuple):
    """One run: N (parameters), V (visual tokens), its error, a share in [0, 1], and its name."""

    n_params: int
    visual_tokens: int
    error: float
    run: str | None = None


class _Placed(dict):
    """A row of one of several tables, with its place there."""

    place = ""


def placed(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The row, which `place_of` then calls so."""
    found = _Placed(row)
    found.place = place
    return found


def place_of(row: Mapping[str, Any], source: str, index: int) -> str:
    """What a message calls a row: its number in `source`, or in the table that it is from."""
    return getattr(row, "place", "") or f"{source}, row {index}"


def family(row: Mapping[str, Any]) -> str | None:
    """The row's family, else that of its backbone in the catalog."""
    if row.get("family") is not None:
        return row["family"]
    llm = llms.find(str(row.get("backbone") or ""))
    return llm.family if llm else None


def point(row: Mapping[str, Any], where: str, convention: str) -> Point:
    """The point of a row; raises InputError naming `where` and the column."""
    tokens = _cell(row, "visual_tokens", where)
    if tokens < 1 or tokens != int(tokens):
        raise InputError(f"{where}: visual_tokens {tokens:g} is not a whole number of at least 1")
    if tokens > _MOST_TOKENS:
        raise InputError(
            f"{where}: visual_tokens {tokens:g} is more than any LLM reads (at most "
            f"{_MOST_TOKENS:,}); it counts the tokens of one image"
        )
    run = None if row.get("run_id") is None else str(row["run_id"])
    return Point(_n_params(row, where, convention), int(tokens), _error(row, where), run)


def _error(row: Mapping[str, Any], where: str) -> float:
    shares = {
        name: _share(row, name, where) for name in ("error", "score") if row.get(name) is not None
    }
    if not shares:
        raise InputError(f"{where}: needs a column 'error' or 'score' with a number")
    if len(shares) == 2 and abs(shares["error"] + shares["score"] - 1) > ROUNDING:
        raise InputError(
            f"{where}: error {shares['error']:g} and score {shares['score']:g} do not add up to 1"
        )
    return shares["error"] if "error" in shares else 1 - shares["score"]


def _share(row: Mapping[str, Any], name: str, where: str) -> float:
    if str(row[name]).strip().endswith("%"):
        raise InputError(
            f"{where}: {name} is {row[name]}; write a share between 0 and 1, 0.6 for 60%"
        )
    value = _cell(row, name, where)
    if not -1e-9 <= value <= 1 + 1e-9:
        percent = "; divide percentages by 100" if 1 < value <= 100 else ""
        raise InputError(f"{where}: {name} is {value:g}; it is a share between 0 and 1{percent}")
    return min(max(value, 0.0), 1.0)


def _n_params(row: Mapping[str, Any], where: str, convention: str) -> int:
    column = CONVENTIONS[convention]
    names = (column, "n_params_b") if convention == "nominal" else (column,)
    given = [name for name in names if row.get(name) is not None]
    counts = [llms.checked_count(_cell(row, name, where), name, where) for name in given]
    if not counts:
        return _from_catalog(row, column, where)
    if max(counts) > 1.01 * min(counts):
        raise InputError(f"{where}: n_params and n_params_b disagree; keep one of them")
    return counts[0]


def _from_catalog(row: Mapping[str, Any], column: str, where: str) -> int:
    llm = llms.find(str(row.get("backbone") or ""))
    if llm is None:
        names = "'n_params' or 'n_params_b'" if column == "n_params" else f"'{column}'"
        raise InputError(
            f"{where}: needs a column {names} with a number, "
            "or a 'backbone' that the catalog of LLMs knows"
        )
    return getattr(llm, column)


def _cell(row: Mapping[str, Any], column: str, where: str) -> float:
    if row.get(column) is None:
        raise InputError(f"{where}: column '{column}' is missing or empty")
    return number(row[column], f"{where}, column '{column}'")
