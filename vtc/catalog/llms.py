"""LLMs the program knows: nominal and exact sizes, shapes, and the source of each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from vtc.catalog import rows
from vtc.catalog.folders import check_kind
from vtc.catalog.shapes import LlmShape, llm_from_config, read_config
from vtc.errors import InputError

_SHAPE = (
    *("n_layers", "hidden_size", "n_heads", "n_kv_heads", "head_dim"),
    *("intermediate_size", "vocab_size"),
)
# Outside these a cell was surely meant in the other unit.
_FEWEST_PARAMETERS = 1000
_MOST_BILLIONS = 1e6


@dataclass(frozen=True)
class LLM:
    """One LLM. `n_params` is the nominal count of its name, the N of the published law."""

    model: str
    family: str
    n_params: int
    n_params_total: int | None = None
    n_params_nonembedding: int | None = None
    source: str = ""
    shape: LlmShape | None = None


@cache
def catalog() -> tuple[LLM, ...]:
    """The LLMs of llms.csv, in its order, and those of the user's own llms.csv."""
    return tuple(_llm(row, where) for row, where in rows.read("llms", "model"))


def _llm(row: rows.Row, where: str) -> LLM:
    shape = shape_of_row(row, where)
    total = rows.whole(row, "n_params_total", where, shape.n_params)
    shape = replace(shape, n_vectors=max(total - shape.n_params, 0))
    return LLM(
        rows.text(row, "model", where),
        (row.get("family") or "").lower(),
        checked_count(rows.positive(row, "n_params", where, total), "n_params", where),
        total,
        rows.whole(row, "n_params_nonembedding", where, total - shape.n_embedding),
        rows.text(row, "source", where),
        shape,
    )


def shape_of_row(row: rows.Row, where: str) -> LlmShape:
    """The shape in the columns of a table of LLMs, without norms and biases.

    Raises InputError for a column that is missing or no number.
    """
    sizes = {name: int(rows.positive(row, name, where)) for name in _SHAPE}
    window = {name: rows.whole(row, name, where, 0) for name in ("window", "n_windowed")}
    tied = rows.text(row, "tied", where).lower()
    if tied not in ("yes", "no", "true", "false"):
        raise InputError(f"{where}: tied is '{tied}'; write yes if the head is the embedding")
    return LlmShape(**sizes, tied=tied in ("yes", "true"), **window)


def families() -> list[str]:
    """The families of the catalog, in its order."""
    return list(dict.fromkeys(llm.family for llm in catalog()))


def family(name: str) -> list[LLM]:
    """The LLMs of one family; raises InputError naming the choices."""
    found = [llm for llm in catalog() if llm.family == name.lower()]
    if not found:
        raise InputError(
            f"--family {name} is unknown; choose {', '.join(families())}, "
            "or give your own table with --models"
        )
    return found


def find(name: str) -> LLM | None:
    """The LLM of a name, hub id or path's last part; chat and instruct variants count as the same.

    For example "Qwen/Qwen1.5-0.5B-Chat" finds Qwen1.5-0.5B.
    """
    return _by_key().get(_key(name))


def shape(source: str | Path) -> LlmShape:
    """The shape of a model folder, or of a name or hub id in the catalog.

    Raises InputError for any other.
    """
    if Path(source).is_dir():
        config = read_config(Path(source))
        check_kind(source, config, "llm")
        return llm_from_config(config, f"llm {source}")
    found = find(str(source))
    if found is None or found.shape is None:
        raise InputError(
            f"llm {source} is neither a model folder nor in the catalog (such as "
            f"{', '.join(llm.model for llm in catalog()[:3])}); give a folder with its config.json"
        )
    return found.shape


@cache
def _by_key() -> dict[str, LLM]:
    return {_key(llm.model): llm for llm in catalog()}


def _key(name: str) -> str:
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()
    return re.sub(r"-(chat|instruct|it|hf|base|v1\.5)(?=-|$)", "", last)


def checked_count(value: float, column: str, where: str) -> int:
    """A table's cell as a count of parameters; `n_params_b` is in billions.

    Raises InputError for what cannot be one, such as a 7 that means billions.
    """
    if value <= 0 or (value < 1 and column != "n_params_b"):
        billions = "; name the column n_params_b if it is in billions" if value > 0 else ""
        raise InputError(f"{where}: {column} is {value:g}; it must be a positive count{billions}")
    if column == "n_params_b":
        if value > _MOST_BILLIONS:
            raise InputError(
                f"{where}: n_params_b is {value:g} billions; name the column n_params if it counts "
                "parameters one by one"
            )
        return round(value * 1e9)
    if value < _FEWEST_PARAMETERS:
        raise InputError(
            f"{where}: {column} is {value:g}, too few for an LLM: write 7e9 for 7 billion, or name "
            "the column n_params_b"
        )
    return round(value)


def counts(llms: Sequence[LLM], convention: str) -> list[int]:
    """The counts of `llms` under a convention of the law table: nominal, total, non-embedding.

    Raises InputError naming an LLM whose count is not known.
    """
    column = {"nominal": "n_params", "total": "n_params_total"}.get(
        convention, "n_params_nonembedding"
    )
    found = []
    for llm in llms:
        count = getattr(llm, column)
        if count is None:
            raise InputError(
                f"the law counts N as {convention}, but {llm.model} has no {column}; "
                f"add that column to the table of --models"
            )
        found.append(count)
    return found
