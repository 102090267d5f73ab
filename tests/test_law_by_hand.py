"""Laws that a person wrote: what they must say, and what is said where they do not."""

import json

import pytest

from vtc import cli
from vtc.errors import InputError
from vtc.law.written import read_laws
from vtc.recommend import read_mix

STATED = {"k": 0.6, "alpha": 0.08, "beta": 0.016, "d": 0.01}
RANGE = {"n_params_min": 5e8, "n_params_max": 7e9, "visual_tokens_min": 1, "visual_tokens_max": 576}


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "law.json"
    file.write_text(json.dumps({**STATED, **RANGE}))
    return file


def test_its_numbers_and_their_range_are_enough(file, capsys):
    mix = read_mix(str(file))
    assert mix.draws == ()
    with pytest.raises(SystemExit) as ended:
        cli.run(["recommend", "--flops", "3e12", "--law", str(file), "--format", "json"])
    assert ended.value.code == 0
    out, said = capsys.readouterr()
    first = json.loads(out.splitlines()[0])
    billions = first["n_params"] / 1e9
    predicted = 0.6 * billions**-0.08 * first["visual_tokens"] ** -0.016 + 0.01
    assert first["error"] == pytest.approx(predicted)
    assert "written by hand" in said


def test_all_that_is_missing_is_named_at_once(file):
    file.write_text(json.dumps(STATED))
    with pytest.raises(InputError, match=r"columns 'n_params_min', .*'visual_tokens_max' of table"):
        read_laws(file)


@pytest.mark.parametrize("kind", ["regret", "map"])
def test_figures_take_it_too(file, kind, tmp_path):
    with pytest.raises(SystemExit) as ended:
        cli.run(["plot", kind, str(file), "-o", str(tmp_path / "figure.png")])
    assert ended.value.code == 0


def test_a_table_of_points_is_no_law(tmp_path):
    file = tmp_path / "points.csv"
    file.write_text("n_params_b,visual_tokens,error\n7,16,.4\n")
    with pytest.raises(InputError, match=r"it has error, .*; `vtc fit` makes a law of a table"):
        read_laws(file)


def test_of_many_columns_the_message_names_some(tmp_path):
    file = tmp_path / "law.json"
    file.write_text(json.dumps({f"c{index:02}": 1 for index in range(60)}))
    with pytest.raises(InputError, match=r"c11, \.\.\. \(60 columns\)"):
        read_laws(file)
