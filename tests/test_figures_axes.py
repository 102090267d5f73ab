"""Axes and looks that the figures share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text

from vtc.figures import style
from vtc.figures.axes import (
    Name,
    apart,
    counts_scale,
    flops_said,
    shortened,
    spread,
    tokens_scale,
    write_names,
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12), st.floats(0.1, 30))
def test_names_are_pushed_apart_and_no_further(heights, least):
    heights = np.sort(np.array(heights))
    found = spread(heights, least)
    assert (np.diff(found) >= least - 1e-9).all()
    assert found.sum() == pytest.approx(heights.sum(), abs=1e-6)
    if (np.diff(heights) >= least).all():
        assert found == pytest.approx(heights)
    # Least squares: no shift of all that hold together would be nearer.
    for start in range(len(found)):
        moved = found.copy()
        moved[start:] += 1e-4
        assert ((moved - heights) ** 2).sum() >= ((found - heights) ** 2).sum() - 1e-9


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 15), min_size=1, max_size=12), st.floats(0.1, 2))
def test_names_stay_within_their_axes(heights, least):
    heights = np.sort(np.array(heights))
    found = spread(heights, least, (0, 10))
    assert np.diff(found) == pytest.approx(np.diff(found).clip(least))
    if least * (len(heights) - 1) <= 10:
        assert -1e-9 <= found[0] <= found[-1] <= 10 + 1e-9
        nearer = np.clip(spread(heights.clip(0, 10), least), 0, 10)
        if (np.diff(nearer) >= least).all():
            assert ((found - heights) ** 2).sum() <= ((nearer - heights) ** 2).sum() + 1e-6
    else:
        assert found[0] + found[-1] == pytest.approx(10)


def test_lines_to_names_cross_no_name_and_leave_no_axes():
    figure = style.new_figure(4, 3)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1])
    ends = [(x, 0.0) for x in (0.1, 0.2, 0.5, 0.5, 0.8, 0.9, 1.0)]
    write_names(figure, {axes: [Name(x, y, f"curve {x}") for x, y in ends]})
    figure.set_layout_engine("none")
    figure.draw_without_rendering()
    left = min(Text.get_window_extent(note).x0 for note in axes.texts)
    bottom = axes.get_window_extent().y0
    for note in axes.texts:
        line = note.arrow_patch.get_window_extent()
        assert line.x1 <= left
        assert line.y0 >= bottom - 1


def test_numbers_of_an_axis_have_room():
    assert apart([1, 4, 16, 36, 64, 144, 576]) == [1, 4, 16, 36, 64, 144, 576]
    assert apart([1, 2, 575, 576]) == [1, 2, 575]
    assert apart([16]) == [16]
    assert apart([]) == []


def test_plain_numbers_stand_on_logarithmic_axes():
    axes = style.new_figure(4, 3).subplots()
    axes.plot([5e8, 7e9], [1, 576])
    counts_scale(axes, 5e8, 7e9)
    tokens_scale(axes, "y", [1, 16, 576])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "16", "576"]
    format_of = axes.xaxis.get_major_formatter()
    assert [format_of(x, 0) for x in (5e8, 1e9, 2e10)] == ["0.5B", "1B", "20B"]
    counts_scale(axes, 1e9, 1e12, said=flops_said)
    assert axes.xaxis.get_major_formatter()(1e9, 0) == "1G"
    one = style.new_figure(4, 3).subplots()
    one.plot([16], [0.5], marker="o")
    tokens_scale(one, "x", [16, 16])
    assert one.get_xlim() == (8, 32)


def test_names_beside_curves_do_not_overlap():
    figure = style.new_figure(5, 3)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1])
    names = [Name(1.0, y, f"curve {y}") for y in (0.5, 0.5, 0.51, 0.52, 7.0)]
    write_names(figure, {axes: names})
    figure.draw_without_rendering()
    boxes = sorted((note.get_window_extent() for note in axes.texts), key=lambda box: box.y0)
    # The extent of a note holds its line to the curve: compare the letters' own centres.
    middles = sorted(note.get_transform().transform(note.xyann)[1] for note in axes.texts)
    assert len(boxes) == 5
    assert min(np.diff(middles)) >= 7.5 * 100 / 72


def test_looks_differ_in_three_ways():
    looks = style.looks(8)
    for key in ("color", "marker", "linestyle"):
        assert len({str(look[key]) for look in looks}) == 8
    grey = [np.dot(look["color"][:3], (0.299, 0.587, 0.114)) for look in style.looks(7)]
    assert min(np.diff(grey)) > 0.05
    assert max(grey) < 0.75


def test_long_names_are_cut_and_dollars_are_letters():
    assert shortened("short", 20) == "short"
    assert shortened("one two three four five", 9, 2) == "one two\nthree…"
    assert shortened("a$b$", 9) == r"a\$b\$"


def test_letters_that_no_font_has_are_told(tmp_path):
    figure = style.new_figure(2, 2)
    figure.subplots().set_title("plain α")
    assert style.save(figure, str(tmp_path / "a.svg")) == ""
    figure.axes[0].set_title("\U00017000 plain")
    with pytest.warns(UserWarning, match="Glyph"):
        assert style.save(figure, str(tmp_path / "b.png")) == "\U00017000"
