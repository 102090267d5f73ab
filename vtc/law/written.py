"""Law files read back: those of a fit, and those that a person wrote with the numbers they have."""

from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.tables.read import read_rows
from vtc.tables.specs import LAW

# What a law of a hand need not say: nothing that an answer stands on, or the usual.
_UNSAID: dict[str, Any] = {
    "task": "all",
    "form": "power",
    "method": "hand",
    "families": [],
    "n_convention": "nominal",
    "unit": "billions",
    "text_tokens": 50.0,
    "n_points": 0,
    "n_sizes": 0,
    "sse": 0.0,
    "rmse": 0.0,
    "draw_k": [],
    "draw_alpha": [],
    "draw_beta": [],
    "draw_d": [],
    "flags": [],
    "data_sha": "",
}


def read_laws(file: str | Path) -> list[dict[str, Any]]:
    """Rows of the law table in a file, or stdin as `-`.

    A file needs k, alpha, beta, d, and the ranges of N and V that the law holds in; draws that are
    missing mean a law without intervals. Raises InputError as `read_rows`.
    """
    try:
        return read_rows(file, LAW, unsaid=_UNSAID).rows
    except InputError as error:
        if "missing; it has" not in str(error):
            raise
        raise InputError(f"{error}; `vtc fit` makes a law of a table of points") from None
