"""What `vtc fit` writes beside laws: profile curves, and the filled checklist."""

import json

import numpy as np
import pytest
from law_design import LOG_N, LOG_V, law, published
from shell import vtc

from vtc.catalog.measurements import PUBLISHED
from vtc.errors import InputError
from vtc.law import checklist
from vtc.law.extras import Extras
from vtc.law.points import read_table
from vtc.law.profiles import profile_rows
from vtc.law.run import Material, Request, fit_laws
from vtc.tables import specs
from vtc.tables.read import read_rows


def laws_of(**options):
    return fit_laws(Request(str(PUBLISHED), **{"n_draws": 0, "drop_suspect": True, **options}))


@pytest.fixture(scope="module")
def reasoning():
    [found] = laws_of(tasks=("reasoning",))
    return found.row, profile_rows(found.points, found.row)


def curve(rows, name):
    return [row for row in rows if row["parameter"] == name]


def test_profiles_of_the_published_points_admit_what_is_known(reasoning):
    row, rows = reasoning
    admitted = {
        name: [one["value"] for one in curve(rows, name) if one["admitted"]]
        for name in ("alpha", "beta", "ratio", "d")
    }
    assert min(admitted["ratio"]) == pytest.approx(4.26, abs=0.05)
    assert max(admitted["ratio"]) == pytest.approx(5.22, abs=0.05)
    # To a step of the grid.
    assert min(admitted["alpha"]) == pytest.approx(0.068, abs=0.005)
    assert max(admitted["alpha"]) == pytest.approx(0.095, abs=0.005)
    assert min(admitted["d"]) == 0
    for name in admitted:
        best = min(curve(rows, name), key=lambda one: one["sse"])
        assert best["value"] == pytest.approx(row[name], abs=1e-9)
        assert best["sse"] == pytest.approx(row["sse"], rel=1e-9)
        assert best["p"] == pytest.approx(1, abs=1e-3)


def test_every_row_of_a_profile_is_a_law_and_the_best_one(reasoning):
    from scipy.optimize import least_squares

    log_n, log_v, errors = published()
    _, rows = reasoning
    for one in rows[::9]:
        gap = one["k"] * np.exp(-one["alpha"] * log_n - one["beta"] * log_v) + one["d"] - errors
        assert gap @ gap == pytest.approx(one["sse"], rel=1e-6)
        held = "alpha" if one["parameter"] == "ratio" else one["parameter"]

        def rival(p, one=one, held=held):
            cells = dict(zip([n for n in ("k", "alpha", "beta", "d") if n != held], p, strict=True))
            if one["parameter"] == "ratio":
                cells["alpha"] = one["value"] * cells["beta"]
            else:
                cells[held] = one["value"]
            line = -cells["alpha"] * log_n - cells["beta"] * log_v
            return cells["k"] * np.exp(line) + cells["d"] - errors

        limits = {"k": (1e-9, 50), "alpha": (-2, 2), "beta": (-2, 2), "d": (0, 1)}
        names = [n for n in limits if n != held]
        start = [min(max(one[n], limits[n][0] + 1e-6), limits[n][1] - 1e-6) for n in names]
        start = [value * 1.1 + 0.001 for value in start]
        other = least_squares(rival, start, bounds=np.transpose([limits[n] for n in names]))
        assert one["sse"] <= 2 * other.cost * (1 + 1e-6)


def test_profiles_are_drawn_with_what_is_admitted(reasoning):
    from vtc.figures.profile import draw

    _, rows = reasoning
    axes = draw(rows).axes
    assert [one.get_xlabel().split(" = ")[0] for one in axes] == ["α", "β", "α/β", "D"]
    for one, name in zip(axes, ("alpha", "beta", "ratio", "d"), strict=True):
        _, thick, *bounds, best = one.get_lines()
        shown = np.array(thick.get_xdata())[np.isfinite(thick.get_ydata())]
        inside = {row["value"] for row in curve(rows, name) if row["admitted"]}
        assert inside <= set(shown)
        # What is drawn beyond them are the places where the curve meets the bound.
        ends = [y for x, y in zip(*thick.get_data(), strict=True) if x in set(shown) - inside]
        [bound] = bounds
        assert ends == pytest.approx([bound.get_ydata()[0]] * len(ends))
        assert len(ends) in (1, 2)
        assert best.get_ydata() == pytest.approx(0, abs=1e-6)


def test_one_size_has_curves_of_beta_and_d():
    errors = law(0.5, 0.3, 0.1, 0.1) + np.random.default_rng(0).normal(0, 0.002, 28)
    rows = [{"n_params_b": 4, "visual_tokens": round(np.exp(v)), "error": e}
            for n, v, e in zip(LOG_N, LOG_V, errors, strict=True) if n == LOG_N[14]]  # fmt: skip
    [found] = fit_laws(Request("t", n_draws=0), Material(rows))
    named = {row["parameter"] for row in profile_rows(found.points, found.row)}
    assert named == {"beta", "d"}


def test_the_checklist_is_filled_from_the_table():
    rows = [
        {"run_id": f"{c}-{n}-{v}-{s}", "backbone": f"qwen-{n}", "family": "qwen", "n_params_b": n,
         "compressor": c, "encoder": "clip", "seed": s, "benchmark": "gqa", "task": "reasoning",
         "metric": "exact_match", "n_items": 500, "visual_tokens": v, "error":
         0.5 * n**-0.3 * v**-0.1 + 0.002 * s + 0.001 * (v % 3)}
        for c in ("avgpool",) for n in (1, 2, 4) for v in (1, 4, 16) for s in (0, 1)
    ]  # fmt: skip
    request = Request("t", n_draws=0, holdout="n_params>=4b")
    laws = [found.row for found in fit_laws(request, Material(rows))]
    blocks = checklist.checklist(laws, rows, [], request.settings())
    answers = {item: answer for items in blocks.values() for item, answer in items}
    assert list(blocks) == ["Hypothesis", "Training set-up", "Data collection", "Fitting"]
    assert answers["Compressors and encoders"] == "avgpool; clip"
    assert answers["Repeats with other seeds"] == "yes; seeds: 0, 1"
    assert answers["Items"] == "gqa 500"
    assert "held out of the fit: n_params>=4b" in answers["Points"]
    assert answers["Extrapolation"].startswith("reasoning: rmse 0.0")
    assert answers["Training data"] is None


def test_the_command_writes_both_and_overwrites_neither(tmp_path):
    command = ["fit", str(PUBLISHED), "--task", "reasoning"]
    command += ["--profile", "profile.parquet", "--report", "law.md", "-o", "law.parquet"]
    command += ["--draws", "0", "--holdout", "n_params>=7b"]
    done = vtc(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {"law.md", "law.json", "law.parquet", "profile.parquet"}
    assert {path.name for path in tmp_path.iterdir()} == names
    found = json.loads((tmp_path / "law.json").read_text())
    assert found["inputs"][0]["sha256"]
    assert "Training data" in found["not_recorded"]
    assert found["laws"][0]["holdout_points"] == 7
    page = (tmp_path / "law.md").read_text()
    assert "## 4. Fitting" in page
    assert "largest 1.0%" in page
    assert {row["parameter"] for row in read_rows(tmp_path / "profile.parquet", specs.PROFILE).rows}
    again = vtc(*command[:-4], "-o", "other.parquet", cwd=tmp_path)
    assert again.returncode == 2
    assert "profile.parquet exists" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize(
    ("extras", "request_", "message"),
    [
        (Extras(profile="p.csv"), {"form": "all"}, "--profile is for the power law"),
        (Extras(report="r"), {"form": "offset"}, "leave out --form offset"),
        (Extras(profile="p.csv"), {"exponents": ".1/.1"}, "leave out --exponents"),
        (Extras(profile="p.csv"), {"method": "paper-grid"}, "leave out --method paper-grid"),
        (Extras(profile="p.csv"), {"by": "family", "share": "alpha"}, "leave out --share"),
        (Extras(profile="-"), {}, "give the name of a file"),
        (Extras(report=".md"), {}, "give a name"),
        (Extras(profile="law.json", report="law"), {}, "name the same file"),
    ],
)
def test_contradictions_are_refused_before_the_fit(
    extras, request_, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        extras.check(Request("t", **request_), "-")


def test_a_report_names_no_backbone_that_was_held_out(tmp_path):
    request = Request(str(PUBLISHED), holdout="n_params>=7b", n_draws=0)
    material = Material(read_table(str(PUBLISHED)))
    Extras(report=str(tmp_path / "r")).write(request, material, fit_laws(request, material))
    page = (tmp_path / "r.md").read_text()
    assert "qwen1.5-4b-chat" in page
    assert "qwen1.5-7b-chat" not in page.split("backbones: ")[1].split(";")[0]
