"""The LLMs to choose from: families of the catalog, a user's table, names and folders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vtc.catalog import llms
from vtc.catalog.llms import LLM
from vtc.catalog.shapes import LlmShape, read_config
from vtc.errors import InputError
from vtc.tables.read import number, read_rows, title


def of_families(names: Sequence[str]) -> list[LLM]:
    """The LLMs of families of the catalog, or of `all`; raises InputError naming the choices."""
    if "all" in names:
        return list(llms.catalog())
    return [llm for name in names for llm in llms.family(name)]


def read_models(path: str, family: str | Sequence[str] | None = None) -> list[LLM]:
    """LLMs of a user's table: model, n_params or n_params_b, and, if wanted, family, exact counts.

    With the columns of a shape (`vtc catalog llms`) exact costs are known too. Raises InputError
    naming the row and the column.
    """
    name = title(path)
    families = [family] if isinstance(family, str) else family
    found: dict[tuple[str, str], LLM] = {}
    for index, row in enumerate(read_rows(path).rows):
        llm = _model(row, f"{name}, row {index}")
        if (llm.family, llm.model) in found:
            raise InputError(f"{name}, row {index}: model '{llm.model}' stands twice")
        found[llm.family, llm.model] = llm
    if not found:
        raise InputError(f"{name} has no rows")
    kept = [llm for llm in found.values() if families is None or llm.family in families]
    if not kept:
        have = ", ".join(sorted({llm.family for llm in found.values()} - {""})) or "no family"
        raise InputError(
            f"{name} has no LLM of family '{', '.join(families or [])}'; it has {have}"
        )
    return kept


def of_sources(sources: Sequence[str], shape_of: Callable[[str], LlmShape]) -> list[LLM]:
    """LLMs by name, folder or hub id; `shape_of` gives the shape of what the catalog lacks.

    N of a folder is the catalog's if its name is there, else `n_params_nominal` of its config.json,
    else its total. Raises InputError for what is nowhere.
    """
    return [_of_source(source, shape_of) for source in sources]


def _of_source(source: str, shape_of: Callable[[str], LlmShape]) -> LLM:
    known, folder = llms.find(source), Path(source)
    if known is not None and not folder.is_dir():
        return known
    shape = shape_of(source)
    stated = read_config(folder).get("n_params_nominal") if folder.is_dir() else None
    total = shape.n_params
    nominal = known.n_params if known else int(stated or total)
    model, family = (known.model, known.family) if known else (source.rstrip("/"), "")
    origin = str(folder / "config.json") if folder.is_dir() else f"config.json of {source}"
    return LLM(model, family, nominal, total, total - shape.n_embedding, origin, shape)


def _model(row: Mapping[str, Any], where: str) -> LLM:
    size = "n_params_b" if row.get("n_params") is None and row.get("n_params_b") else "n_params"
    for column in ("model", size):
        if row.get(column) is None:
            raise InputError(f"{where}: column '{column}' is missing or empty")
    counts = []
    for column in (size, "n_params_total", "n_params_nonembedding"):
        cell = row.get(column)
        if cell is not None:
            cell = llms.checked_count(number(cell, f"{where}, column '{column}'"), column, where)
        counts.append(cell)
    llm = LLM(str(row["model"]), str(row.get("family") or ""), *counts)
    if row.get("n_layers") is None:
        return llm
    cells = {name: "" if cell is None else str(cell) for name, cell in row.items()}
    shape = llms.shape_of_row(cells, where)
    vectors = max((llm.n_params_total or 0) - shape.n_params, 0)
    return replace(llm, shape=replace(shape, n_vectors=vectors))


def with_shapes(models: Sequence[LLM]) -> list[tuple[LLM, LlmShape]]:
    """The LLMs with their shapes; raises InputError naming one whose shape is not known."""
    found = []
    for llm in models:
        if llm.shape is None:
            raise InputError(
                f"exact costs need the shape of {llm.model}: add the columns of `vtc catalog llms` "
                "to its row, or name its folder with --llm"
            )
        found.append((llm, llm.shape))
    return found
