"""Tables on a terminal: no line wider than it, and stderr names what is not shown."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from vtc import console

LONG = "a value of four hundred characters, " * 12
TURNS = [{"role": "user", "text": "What colour?"}, {"role": "assistant", "text": "Red."}]


def on_a_terminal(*arguments, width, cwd=None, env=None):
    """What a command writes on a terminal's screen, and its stderr."""
    screen, terminal = pty.openpty()
    # No translation of line ends; a size, as an emulator sets it.
    attributes = termios.tcgetattr(terminal)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    own = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen(
        [sys.executable, "-m", "vtc", *map(str, arguments)],
        stdout=terminal, stderr=subprocess.PIPE, text=True, cwd=cwd,
        env={**own, "NO_COLOR": "1", "TERM": "dumb", **(env or {})},
    ) as running:  # fmt: skip
        os.close(terminal)
        written = b""
        while chunk := _read(screen):
            written += chunk
        assert running.stderr is not None
        words = running.stderr.read()
    os.close(screen)
    assert running.returncode == 0, words
    return written.decode().splitlines(), words


def _read(screen):
    try:
        return os.read(screen, 1 << 16)
    except OSError:  # Linux says so when the other end is closed.
        return b""


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "command",
    [
        ("recommend", "--gpu", "rtx4090", "--latency", "60ms", "--g", "8", "--weights", "nf4"),
        ("benchmarks",),
        ("show", "wide.parquet"),
    ],
)
def test_no_line_is_wider_than_the_terminal(tmp_path, command, width):
    from vtc.tables.inspect import guess
    from vtc.tables.write import write_rows

    rows = [
        {"sample_id": f"s{n}", **{f"number_{k}": n + k for k in range(8)}, "note": LONG[n:]}
        for n in range(3)
    ]
    write_rows(*guess(rows), tmp_path / "wide.parquet")
    lines, words = on_a_terminal(*command, width=width, cwd=tmp_path)
    assert len(lines) > 3
    assert max(map(cell_len, lines)) <= width
    if command[0] == "show":
        assert lines[1].startswith("s0")
        assert ("columns do not fit here: " in words) == (width == 80)
        assert ("note; --format csv shows all" in words) == (width == 80)


def printed(rows, columns, capsys, monkeypatch, width=None):
    """What the table of some rows looks like, on a terminal of a width or in a pipe."""
    monkeypatch.setattr(console, "_verbosity", 0)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: width is not None, raising=False)
    monkeypatch.setenv("COLUMNS", str(width or 80))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    console.print_table(rows, columns)
    return capsys.readouterr()


ROWS = [
    {"name": "a", "none": None, "same": 7, "count": 123456, "text": LONG, "end": "x"},
    {"name": "b", "none": None, "same": 7, "count": 2, "text": "short", "end": "y"},
]


def test_a_pipe_gets_whole_cells_and_a_long_one_pads_no_other_row(capsys, monkeypatch):
    shown = printed(ROWS, list(ROWS[0]), capsys, monkeypatch)
    head, first, second = shown.out.splitlines()
    assert LONG.strip() in first
    assert first.split()[-1] == "x"
    assert len(second) < 120
    assert (head.split(), shown.err) == (list(ROWS[0]), "")
    assert second.split() == ["b", "-", "7", "2", "short", "y"]


def test_a_terminal_shortens_texts_before_it_leaves_out_what_says_least(capsys, monkeypatch):
    wide = printed(ROWS, list(ROWS[0]), capsys, monkeypatch, width=60)
    assert wide.err == ""
    head, first, _ = wide.out.splitlines()
    assert head.split() == list(ROWS[0])
    assert ("123456" in first, "…" in first, cell_len(first) <= 60) == (True, True, True)
    for width, left_out in ((50, "none"), (44, "none, same"), (38, "none, same, end")):
        narrow = printed(ROWS, list(ROWS[0]), capsys, monkeypatch, width=width)
        some = "one column does" if "," not in left_out else f"{left_out.count(',') + 1} columns do"
        assert narrow.err == f"{some} not fit here: {left_out}; --format csv shows all\n"
        assert max(map(cell_len, narrow.out.splitlines())) <= width
        assert "123456" in narrow.out


def test_nested_cells_are_compact():
    assert console.format_cell(TURNS) == "user: What colour? | assistant: Red."
    assert console.format_cell([{"text": "a", "x": 0.5}]) == "{text: a, x: 0.5}"
    assert console.format_cell(["a\n", 1]) == "a\\n, 1"


@given(st.text(max_size=80), st.integers(1, 40))
def test_a_shortened_text_fits(text, width):
    text = console.format_cell(text)
    short = console.shorten(text, width)
    assert cell_len(short) <= max(width, 1)
    assert (short == text) == (cell_len(text) <= width)
