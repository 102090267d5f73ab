"""Vision encoders the program knows, with the source of each shape."""

import csv
from functools import cache
from importlib import resources
from pathlib import Path

from vtc.catalog.shapes import EncoderShape, encoder_from_config, read_config
from vtc.errors import InputError

_NUMBERS = (
    *("n_layers", "hidden_size", "n_heads", "intermediate_size"),
    *("image_size", "patch_size", "n_params"),
)


@cache
def catalog() -> dict[str, EncoderShape]:
    """The encoders of encoders.csv by hub id, in its order."""
    text = resources.files("vtc.catalog").joinpath("encoders.csv").read_text(encoding="utf-8")
    return {
        row["encoder"]: EncoderShape(
            **{name: int(row[name]) for name in _NUMBERS}, class_token=row["class_token"] == "yes"
        )
        for row in csv.DictReader(text.splitlines())
    }


def shape(source: str | Path) -> EncoderShape:
    """The shape of a model folder, or of a hub id or its last part in the catalog.

    Raises InputError naming the catalog's encoders for any other.
    """
    if Path(source).is_dir():
        return encoder_from_config(read_config(Path(source)), f"encoder {source}")
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
