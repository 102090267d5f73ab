"""`vtc plot`: files written whole or not at all, in three formats, and bad input said in a line."""

import pytest
from click.testing import CliRunner

from vtc.catalog.measurements import PUBLISHED
from vtc.cli import main
from vtc.errors import VtcError

POINTS = [str(PUBLISHED), "--drop-suspect", "--task", "reasoning"]


def plot(*arguments):
    return CliRunner().invoke(main, ["-q", "plot", *map(str, arguments)])


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        (["law", *POINTS, "--law", "published", "--q", "0,50"], "png"),
        (["holdout", *POINTS, "--holdout", "n_params>=7b"], "svg"),
        (["ridge", *POINTS, "--law", "published"], "pdf"),
        (["text", "published", "--task", "ocr"], "svg"),
        (["regret", "paper", "--task", "reasoning"], "png"),
        (["map", "--task", "reasoning:0.7,ocr:0.3", "--family", "qwen2.5"], "png"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_a_figure_is_written_and_no_existing_one_lost(kind, suffix, tmp_path):
    out = tmp_path / f"figure.{suffix}"
    done = plot(*kind, "-o", out)
    assert done.exit_code == 0, done.output
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert out.read_bytes().startswith(start)
    again = plot(*kind, "-o", out)
    assert isinstance(again.exception, VtcError)
    assert "--force" in str(again.exception)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["holdout", *POINTS, "-o", "x.png"], "give one of --law"),
        (["holdout", *POINTS, "--holdout", "n_params>90b", "-o", "x.png"], "matches no point"),
        (["holdout", *POINTS, "--holdout", "7b", "-o", "x.png"], "write n_params or visual_tokens"),
        (["text", "none.parquet", "-o", "x.png"], "does not exist"),
        (["text", "--task", "chess", "-o", "x.png"], "has no law of task 'chess'"),
        (["text", "--task", "reasoning:0.7,ocr:0.7", "-o", "x.png"], "must sum to 1"),
        (["regret", "--task", "reasoning:0.7,ocr:0.3", "-o", "x.png"], "not a mix"),
        (["map", "--q", "10,1", "-o", "x.png"], "the smaller number first"),
        (["map", "--flops", "1,2", "-o", "x.png"], "nothing fits"),
        (["map", "--family", "gpt", "-o", "x.png"], "--family gpt is unknown"),
        (["groups", "published.json", "-o", "x.png"], "published.json"),
        (["ridge", str(PUBLISHED), "-o", "x.bmp"], "must be one of png, svg, pdf"),
        (["forms", str(PUBLISHED), "--forms", "none.parquet", "-o", "x.png"], "none.parquet"),
    ],
)
def test_bad_input_is_said(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = plot(*arguments)
    assert isinstance(done.exception, VtcError)
    assert message in str(done.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [("0,x", "'x' is not a number"), ("0,0", "twice"), ("-1", "at least zero"), ("", "number")],
)
def test_lists_of_q_are_checked(value, message, tmp_path):
    done = plot("text", "--q", value, "-o", tmp_path / "x.png")
    assert done.exit_code == 2
    assert message in done.output


def test_the_help_names_every_figure_with_an_example():
    done = CliRunner().invoke(main, ["plot", "--help"])
    figures = main.commands["plot"].commands  # pyright: ignore[reportAttributeAccessIssue]
    assert len(figures) == 12
    for name in figures:
        assert f"vtc plot {name} " in done.output
        assert f"`{name}`" in done.output
