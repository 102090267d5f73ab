"""The shipped facts: every row has a source, and the shipped laws are what a refit gives."""

import csv
import json

import pytest

from vtc.catalog import laws, llms
from vtc.catalog.measurements import PUBLISHED
from vtc.errors import InputError
from vtc.law.run import Request, fit_table
from vtc.tables import specs
from vtc.tables.read import read_rows


def test_every_llm_has_its_sizes_and_source():
    every = llms.catalog()
    assert len({llm.model for llm in every}) == len(every) == 34
    for llm in every:
        assert llm.source
        assert llm.n_params_nonembedding < llm.n_params_total
        # The nominal count is a name: it may be off by a quarter, not by a factor.
        assert 0.75 < llm.n_params_total / llm.n_params < 1.27
    assert "qwen1.5" in llms.families()


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("qwen1.5-0.5b-chat", "Qwen1.5-0.5B"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen2.5-7B"),
        ("/models/vicuna-7b-v1.5/", "Vicuna-7B-v1.5"),
        ("google/gemma-3-4b-it", "Gemma-3-4B"),
    ],
)
def test_names_are_found(name, model):
    assert llms.find(name).model == model


def test_unknown_names_are_not_found():
    assert llms.find("my-llm") is None
    with pytest.raises(InputError, match="--family x is unknown"):
        llms.family("x")


def test_published_measurements_carry_source_and_notes():
    rows = list(csv.DictReader(PUBLISHED.open()))
    assert len(rows) == 56
    assert all(row["source"] for row in rows)
    assert [row["task"] for row in rows if row["note"].startswith("suspect")] == ["ocr", "ocr"]


def test_the_published_law_is_what_a_refit_gives():
    shipped = read_rows(laws.path("published"), specs.LAW).rows
    refitted = fit_table(Request(str(PUBLISHED), drop_suspect=True))
    assert len(shipped) == len(refitted) == 2
    for old, (new, _) in zip(shipped, refitted, strict=True):
        compare(old, specs.LAW.complete(new))


@pytest.mark.parametrize(("task", "exponents"), [("reasoning", ".077/.015"), ("ocr", ".029/.048")])
def test_the_papers_law_is_what_a_refit_gives(task, exponents):
    shipped = {row["task"]: row for row in read_rows(laws.path("paper"), specs.LAW).rows}
    request = Request(str(PUBLISHED), (task,), exponents=exponents, drop_suspect=task == "ocr")
    [(new, _)] = fit_table(request)
    compare(shipped[task], specs.LAW.complete(new))


def compare(old, new):
    """Estimates to seven digits; draws, which a last bit may push over a bound, by their spread."""
    for name, value in new.items():
        if name.startswith("draw_"):
            assert len(old[name]) == len(value)
            same = sum(a == pytest.approx(b, rel=1e-3, abs=1e-6)
                       for a, b in zip(old[name], value, strict=True))  # fmt: skip
            assert same >= 0.97 * len(value)
        elif isinstance(value, float):
            assert old[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
        else:
            assert old[name] == value, name


def test_shipped_laws_are_strict_json():
    for name in laws.SHIPPED:
        for line in laws.path(name).read_text().splitlines():
            json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
