"""Tables of points as people have them: line ends, marks and separators, and hopeless ones."""

import numpy as np
import pytest
from law_design import LOG_N, LOG_V, law

from vtc.errors import InputError, NoAnswerError
from vtc.law.run import Request, fit_table

ERRORS = law(0.5, 0.3, 0.1, 0.1) + np.random.default_rng(0).normal(0, 0.002, len(LOG_N))
ROWS = [f"{n:.4g},{v:.0f},{e:.6f}"
        for n, v, e in zip(np.exp(LOG_N), np.exp(LOG_V), ERRORS, strict=True)]  # fmt: skip
TEXT = "\n".join(["n_params_b,visual_tokens,error", *ROWS, ""])


def fitted(tmp_path, content, **options):
    file = tmp_path / "points.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [row for row, _ in fit_table(Request(str(file), n_draws=0, **options))]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace(",", ", "),
        TEXT.replace("error", '"error"'),
        TEXT + "\n\n",
    ],
    ids=["BOM", "CRLF", "blanks", "quotes", "empty lines"],
)
def test_other_marks_and_line_ends_are_the_same_table(tmp_path, content):
    assert fitted(tmp_path, content) == fitted(tmp_path, TEXT)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("", InputError, "points.csv is empty"),
        (TEXT.splitlines()[0], InputError, "points.csv has no rows"),
        (TEXT.replace(",", ";"), InputError, "separated by ';'; separate them by ','"),
        (TEXT.replace("0.", "60."), InputError, "row 0: error is 60.*divide percentages by 100"),
        (TEXT.replace(ROWS[3], "0.5,36,51%"), InputError, "row 3: error is 51%; write a share"),
        (TEXT.replace(ROWS[3], "0.5,36,nan"), InputError, "row 3, column 'error': nan is not"),
        (TEXT.replace(ROWS[3], "0.5,36,-.1"), InputError, "row 3: error is -0.1; it is a share"),
        (TEXT.replace(ROWS[3], "0.5,36.5,.4"), InputError, "visual_tokens 36.5 is not a whole"),
        (TEXT.replace(ROWS[3], "-0.5,36,.4"), InputError, "row 3: n_params_b is -0.5"),
        ("\n".join([TEXT.splitlines()[0], *(f"{n},{4},.{n}" for n in (2, 3, 4, 5))]),
         NoAnswerError, "every point has 4 visual tokens"),
        ("\n".join([TEXT.splitlines()[0], *(f"{n},{v},.5" for n in (2, 3) for v in (1, 4))]),
         NoAnswerError, "every point has the same error 0.5"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_said(tmp_path, content, error, message):
    with pytest.raises(error, match=message):
        fitted(tmp_path, content)


def test_a_holdout_of_nothing_says_what_there_is(tmp_path):
    with pytest.raises(InputError, match=r"it has n_params 500M, 1\.8B, 4B, 7B and visual_tokens"):
        fitted(tmp_path, TEXT, holdout="n_params>=9b")


def test_a_single_size_has_beta_alone(tmp_path):
    [row] = fitted(tmp_path, "\n".join(TEXT.splitlines()[:8]))
    assert row["alpha"] is None
    assert row["flags"][0] == "single_size"
