"""The law figure: what is drawn, in which formats, and how bad requests are refused."""

import json

import numpy as np
import pytest
from PIL import Image
from shell import vtc

from vtc.catalog import laws
from vtc.catalog.measurements import PUBLISHED
from vtc.cost.flops import prefill_flops
from vtc.errors import InputError
from vtc.figures import style
from vtc.figures.law import best_line, draw
from vtc.figures.panel import law_panels
from vtc.law.power import PowerLaw


@pytest.fixture(scope="module")
def panels():
    return law_panels(str(PUBLISHED), str(laws.path("published")), drop_suspect=True)


def test_a_column_a_task_and_a_curve_a_size(panels):
    figure = draw(panels, (50,))
    assert len(figure.axes) == 4
    flops_axes = figure.axes[0]
    labels = [text.get_text() for text in flops_axes.get_legend().get_texts()]
    assert labels == ["0.5B", "1.8B", "4B", "7B", "best N and V (law)"]
    assert "4.70 [4.32, 5.15]" in flops_axes.get_title(loc="left")
    points = [line for line in flops_axes.lines if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in points) == 28
    assert len({line.get_marker() for line in points}) == 4
    first = points[0]
    assert first.get_xdata()[0] == prefill_flops(5e8, 1, 50)
    assert first.get_ydata()[0] == pytest.approx(1 - 0.3855)


def test_colours_differ_in_grey():
    grey = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b, _ in style.ordered_colors(5)]
    assert min(np.diff(grey)) > 0.08


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.1), (0.1, 0.3), (0.2, -0.05)])
def test_no_choice_in_range_lies_below_the_best_line(alpha, beta):
    law, sizes, tokens, q = PowerLaw(0.5, alpha, beta, 0.1), [10**9, 10**10], (1, 576), 50.0
    flops, errors = best_line(law, sizes, tokens, q)
    order = np.argsort(flops)
    for n in np.geomspace(*sizes, 15):
        for v in np.geomspace(*tokens, 15):
            budget = prefill_flops(n, v, q)
            reached = np.interp(np.log(budget), np.log(flops[order]), errors[order])
            # A line of finitely many points bends inside by less than this.
            assert law.error(n, v) >= reached - 2e-3 or beta < 0


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_formats_and_equal_bytes(panels, tmp_path, suffix):
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        style.save(draw(panels[:1], (50,)), str(path))
    assert paths[0].read_bytes()[:8].strip().startswith((b"\x89PNG", b"<?xml", b"%PDF"))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    if suffix == "png":
        with Image.open(paths[0]) as image:
            assert np.asarray(image.convert("L")).std() > 5
    with pytest.raises(InputError, match="exists"):
        style.save(draw(panels[:1], (50,)), str(paths[0]))


def test_points_held_out_are_hollow(tmp_path):
    from vtc.law.run import Request, fit_table
    from vtc.tables import specs
    from vtc.tables.write import write_rows

    [(row, _)] = fit_table(Request(str(PUBLISHED), ("reasoning",), holdout="n_params>=7b"))
    write_rows([row], specs.LAW, tmp_path / "law.json")
    [panel] = law_panels(str(PUBLISHED), str(tmp_path / "law.json"))
    axes = draw([panel], (50,)).axes[0]
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False] * 3 + [True]
    assert points[-1].get_label() == "7B (held out)"


def test_rows_of_panels_are_of_several_q(panels):
    figure = draw(panels, (0, 50))
    assert len(figure.axes) == 6
    titles = [axes.get_title(loc="left") for axes in figure.axes[:4]]
    assert "best V at Q = 0: as few as possible" in titles[0]
    assert titles[2] == "best V at Q = 50: 13.5"
    assert [note.get_text() for note in figure.axes[4].texts] == ["7B", "4B", "1.8B", "0.5B"]


@pytest.mark.parametrize(("alpha", "beta"), [(-0.1, 0.1), (0.1, -0.1), (-0.1, -0.1)])
def test_the_best_line_never_rises(alpha, beta):
    flops, errors = best_line(PowerLaw(0.5, alpha, beta, 0.1), [10**9, 10**10], (1, 576), 50.0)
    assert (np.diff(flops) >= 0).all()
    assert (np.diff(errors) <= 1e-12).all()


def test_one_size_is_drawn_without_a_best_line(tmp_path):
    table = tmp_path / "one.csv"
    table.write_text(
        "n_params_b,visual_tokens,error\n1,1,.6\n1,4,.55\n1,16,.52\n1,64,.5\n1,144,.49\n"
    )
    axes = draw(law_panels(str(table), None), (50,)).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1B"]


def test_a_shipped_law_is_drawn_and_no_text_asks_for_few_tokens():
    [panel] = law_panels(str(PUBLISHED), "paper", ("reasoning",))
    assert panel.row["alpha"] == 0.077
    assert "as few as possible" in draw([panel], (0,)).axes[0].get_title(loc="left")


def test_the_command(tmp_path):
    def plot(*arguments):
        return vtc("plot", "law", *arguments)

    out = tmp_path / "law.png"
    done = plot(str(PUBLISHED), "--drop-suspect", "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert out.exists()
    assert done.stdout == ""
    for arguments, message in (
        ([str(PUBLISHED), "-o", str(out)], "exists"),
        ([str(PUBLISHED), "-o", str(tmp_path / "x.bmp")], "must be one of png, svg, pdf"),
        (["none.csv", "-o", str(tmp_path / "x.png")], "none.csv does not exist"),
        ([str(PUBLISHED), "--task", "chess", "-o", str(tmp_path / "x.png")], "'chess'"),
    ):
        done = plot(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["law.png"]


def test_laws_of_groups_are_drawn_beside_their_own_points(tmp_path):
    from vtc.law.run import Material, Request, fit_table
    from vtc.tables import specs
    from vtc.tables.write import write_rows

    rows = [
        {"n_params_b": n, "visual_tokens": v, "compressor": c, "task": "reasoning",
         "error": k * n**-0.3 * v**-0.1 + 0.001 * (v % 3)}
        for c, k in (("a", 0.5), ("b", 0.4)) for n in (1, 2, 4) for v in (1, 4, 16)
    ]  # fmt: skip
    table, law = tmp_path / "points.json", tmp_path / "law.parquet"
    table.write_text("\n".join(map(json.dumps, rows)))
    fitted = fit_table(Request("t", by="compressor", n_draws=0), Material(rows))
    write_rows([row for row, _ in fitted], specs.LAW, law)
    panels = law_panels(str(table), str(law))
    assert [panel.points.group for panel in panels] == ["a", "b"]
    assert all(len(panel.points.points) == 9 for panel in panels)
    assert [axes.get_title(loc="left")[:12] for axes in draw(panels, (50,)).axes[:2]] == [
        "reasoning, a", "reasoning, b",
    ]  # fmt: skip
    table.write_text("\n".join(map(json.dumps, rows[:9])))
    with pytest.raises(InputError, match="has no points of compressor 'b'"):
        law_panels(str(table), str(law))
