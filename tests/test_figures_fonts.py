"""Letters that the usual font lacks are drawn with an installed one that has them, or named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image
from test_cli_score import prediction

from vtc.cli import main
from vtc.figures.fonts import fonts_for
from vtc.figures.sheet import Cell, draw
from vtc.tables import specs
from vtc.tables.write import write_rows

FAMILY = "Vtc Signs"
# A hieroglyph, an Adlam letter and a cuneiform sign: other fonts have one of them at most.
SIGNS = "\U00013000\U0001e900\U00012000"
TANGUT = "\U00017000"


def make_font(path: Path) -> Path:
    """A font with a square for each of SIGNS, and nothing else."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 700), (800, 700), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    names = [f"sign{n}" for n in range(len(SIGNS))]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap({ord(sign): name for sign, name in zip(SIGNS, names, strict=True)})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), **dict.fromkeys(names, square)})
    builder.setupHorizontalMetrics({name: (900, 100) for name in (".notdef", *names)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": FAMILY, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200, usWeightClass=400)
    builder.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)
    return path


def test_the_usual_font_is_enough_for_most_of_europe():
    found = fonts_for(["How many? é ü ω Привет\n\t", ""])
    assert found == (["sans-serif"], "")


def test_an_installed_font_has_the_letters(tmp_path):
    path = make_font(tmp_path / "signs.ttf")
    font_manager.fontManager.addfont(path)
    found = fonts_for(["plain", f"x {SIGNS}"])
    assert found.families == ["sans-serif", FAMILY]
    assert found.missing == ""
    figure = draw([Cell([], "text alone", "t", f"Is it {SIGNS[0]}?", SIGNS[1], "$x", False)],
                  found.families)  # fmt: skip
    texts = [text for axes in figure.axes for text in axes.texts]
    assert {tuple(text.get_fontfamily()) for text in texts} == {("sans-serif", FAMILY)}


def test_lines_of_wide_letters_are_shorter():
    def lines(question: str) -> list[str]:
        figure = draw([Cell([], "", "t", question, "a", "t", True)])
        shown = [text.get_text() for axes in figure.axes for text in axes.texts]
        return [line for line in shown if line.strip()][:-2]

    assert max(map(len, lines("abcd " * 30))) <= 40
    assert 18 <= max(map(len, lines("图" * 60))) <= 20
    assert len(lines("图" * 60)) == 4


def write_answer(folder: Path, answer: str) -> list[str]:
    """A table of one wrong answer, its picture, and what draws them, to be run in the folder."""
    Image.new("RGB", (8, 8)).save(folder / "0.png")
    rows = [prediction(0, answer, image_id="0.png")]
    write_rows(rows, specs.PREDICTIONS, folder / "p.parquet")
    return ["show", "p.parquet", "--wrong", "--images", ".", "--sheet", "sheet.png"]


def test_a_font_of_this_user_is_found(tmp_path):
    make_font(tmp_path / "share" / "fonts" / "signs.ttf")
    done = subprocess.run(
        [sys.executable, "-m", "vtc", *write_answer(tmp_path, SIGNS)],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path / "share")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sheet.png").is_file()
    assert "installed font" not in done.stderr
    assert "findfont" not in done.stderr


def test_letters_that_no_font_has_are_said(tmp_path, monkeypatch, capsys):
    entries = [e for e in font_manager.fontManager.ttflist if not e.name.startswith("Last Resort")]
    if any(ord(TANGUT) in FT2Font(entry.fname).get_charmap() for entry in entries):
        pytest.skip("this machine has a font for Tangut")
    monkeypatch.chdir(tmp_path)
    main.main(write_answer(tmp_path, f"yes {TANGUT}"), standalone_mode=False)
    said = capsys.readouterr().err
    assert f"no installed font has the letters {TANGUT}: they are drawn as boxes; install" in said
    assert (tmp_path / "sheet.png").is_file()
