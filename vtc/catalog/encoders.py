"""Vision encoders the program knows, with the source of each shape."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from vtc.catalog import rows
from vtc.catalog.folders import check_kind
from vtc.catalog.shapes import EncoderShape, encoder_from_config, n_vit_params, read_config
from vtc.errors import InputError

_NUMBERS = (
    *("n_layers", "hidden_size", "n_heads", "intermediate_size"),
    *("image_size", "patch_size"),
)


@cache
def catalog() -> dict[str, EncoderShape]:
    """The encoders of encoders.csv by hub id, in its order, and those of the user's own."""
    return {encoder: shape for encoder, shape, _ in entries()}


@cache
def entries() -> tuple[tuple[str, EncoderShape, str], ...]:
    """Hub id, shape and source of each."""
    return tuple(_entry(row, where) for row, where in rows.read("encoders", "encoder"))


def _entry(row: rows.Row, where: str) -> tuple[str, EncoderShape, str]:
    sizes: dict[str, Any] = {name: int(rows.positive(row, name, where)) for name in _NUMBERS}
    classed = (row.get("class_token") or "").lower() in ("yes", "true")
    shape = EncoderShape(**sizes, class_token=classed, n_params=0)
    n_params = rows.whole(row, "n_params", where, n_vit_params(shape))
    return row["encoder"], replace(shape, n_params=n_params), rows.text(row, "source", where)


def shape(source: str | Path) -> EncoderShape:
    """The shape of a model folder, or of a hub id or its last part in the catalog.

    Raises InputError naming the catalog's encoders for any other.
    """
    if Path(source).is_dir():
        config = read_config(Path(source))
        check_kind(source, config, "encoder")
        return encoder_from_config(config, f"encoder {source}")
    name = _last_part(str(source))
    for known, found in catalog().items():
        if _last_part(known) == name:
            return found
    raise InputError(
        f"encoder {source} is neither a model folder nor in the catalog ({', '.join(catalog())}); "
        "give a folder with its config.json"
    )


def _last_part(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()
