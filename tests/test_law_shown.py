"""Laws on a terminal: an estimate with its interval in a cell, and what was written beside them."""

from shell import vtc

from vtc.catalog.measurements import PUBLISHED
from vtc.commands import law_tables
from vtc.law.sentences import describe
from vtc.recommend import law_row


def test_an_estimate_stands_with_its_interval():
    rows = [law_row("published", task) for task in ("reasoning", "ocr")]
    shown, columns = law_tables.laws(rows, None)
    assert [row["ratio"] for row in shown] == ["4.7 [4.32, 5.15]", "0.712 [0.399, 1.3]"]
    assert [row["v_star"] for row in shown] == ["13.5 [12.1, 15]", "most [164, most]"]
    assert shown[0]["alpha"] == 0.0709
    assert [*columns][:3] == ["task", "alpha", "beta"]
    assert law_tables.laws(rows, "compressor")[1]["group"] == "compressor"
    # The table itself is left as it was.
    assert rows[0]["ratio"] > 4.69


def test_what_is_not_known_is_left_empty():
    row = {**law_row("published", "reasoning"), "ratio": None, "v_star": None, "alpha": None}
    row |= {f"{name}_{end}": None for name in ("ratio", "v_star") for end in ("low", "high")}
    [shown], _ = law_tables.laws([row], None)
    assert (shown["ratio"], shown["v_star"], shown["alpha"]) == (None, None, None)
    bare = {**row, "ratio": 4.0, "v_star": 16.666}
    [shown], _ = law_tables.laws([bare], None)
    assert (shown["ratio"], shown["v_star"]) == ("4", "16.7")
    [shown], _ = law_tables.laws([{**bare, "ratio_low": 3.0}], None)
    assert shown["ratio"] == "4 [3, -]"


def test_the_command_prints_them_and_says_what_it_wrote(tmp_path):
    done = vtc("fit", PUBLISHED, "--task", "reasoning", "--draws", 0, "--profile",
               tmp_path / "profile.csv", "--report", tmp_path / "law")  # fmt: skip
    heading, row = done.stdout.splitlines()
    assert heading.split()[-3:] == ["points", "sizes", "flags"]
    assert "4.7 [4.32, 5.15]  13.5 [12.1, 15]" in row
    for name in ("profile.csv", "law.md", "law.json"):
        assert f"wrote {tmp_path / name}" in done.stderr
    forms = vtc("fit", PUBLISHED, "--task", "reasoning", "--form", "log-linear")
    assert "without a point  without a size  best V" in forms.stdout
    assert "reasoning: form log-linear over 28 points." in forms.stderr


def test_a_best_v_is_printed_as_one_token_at_least():
    row = {**law_row("published", "reasoning"), "v_star": 0.2, "v_star_low": 0.17}
    [shown], _ = law_tables.laws([{**row, "v_star_high": 3.0}], None)
    assert shown["v_star"] == "1 [1, 3]"
    [_, said, *_] = describe({**row, "v_star_high": None})
    assert said.endswith("best V at Q = 50: 1 [1, no bound] visual token, the fewest there are.")


def test_a_jackknife_that_is_the_narrower_interval_is_said_to_be():
    for task, narrower in (("reasoning", False), ("ocr", True)):
        said = " ".join(describe(law_row("published", task)))
        assert "jackknife interval" in said
        assert ("here the narrower one" in said) is narrower
