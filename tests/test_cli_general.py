"""How every command behaves: exit codes, one-line failures, settings, pipes, terminals."""

import os
import pty
import signal
import subprocess
import sys
import time

import click
import pytest

from vtc import cli
from vtc.commands import options

VTC = [sys.executable, "-m", "vtc"]
BARE = "prediction,references\nYes.,yes\nno,yes\n"
ABOUT = ["--benchmark", "b", "--task", "ocr", "--n-params", "7b", "--visual-tokens", "4"]


def vtc(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess:
    return subprocess.run([*VTC, *map(str, arguments)], input=stdin, capture_output=True, text=True)


@pytest.fixture
def bare(tmp_path):
    path = tmp_path / "bare.csv"
    path.write_text(BARE)
    return path


def test_version_and_help():
    assert vtc("--version").stdout.startswith("vtc 0.")
    for arguments in (("-h",), ("score", "-h")):
        done = vtc(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Example:" in done.stdout
    nothing = vtc()
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "Usage: vtc" in nothing.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scroe",), "No such command 'scroe'"),
        (("score",), "Missing argument 'PREDICTIONS"),
        (("score", "x.csv", "--metrik", "anls"), "No such option '--metrik'"),
        (("score", "x.csv", "--task", "maths"), "'maths' is not one of 'reasoning', 'ocr'"),
        (("score", "x.csv", "--n-params", "big"), "'big' is not a number such as 3e12"),
        (("score", "x.csv", "--n-params", "-7b"), "'-7b' must be above zero"),
        (("score", "none.csv"), "Error: none.csv does not exist"),
        (("score", "-"), "Error: stdin is empty; expected a table"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments, message):
    done = vtc(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback_and_keeps_the_exit_code(tmp_path):
    done = vtc("--debug", "score", tmp_path / "none.csv")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")


def test_stdin_and_stdout_are_dashes(bare):
    first = vtc("score", "-", "--metric", "exact_match", *ABOUT, "--format", "json", stdin=BARE)
    assert first.returncode == 0
    assert '"score": 0.5' in first.stdout
    piped = f"{sys.executable} -m vtc"
    command = (
        f"{piped} score {bare} --metric exact_match {' '.join(ABOUT)} --format parquet"
        f" | {piped} show - --format csv --columns score,error"
    )
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "score,error\n0.5,0.5\n"


def test_a_flag_wins_over_the_config_file_which_wins_over_the_default(bare, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text('metric = "anls"\nbenchmark = "b"\ntask = "ocr"\nn-params = "7b"\n')
    common = ("score", bare, "--config", settings, "--visual-tokens", 4, "--format", "json")
    assert '"metric": "anls"' in vtc(*common).stdout
    done = vtc(*common, "--metric", "exact_match")
    assert '"metric": "exact_match"' in done.stdout
    assert '"n_params": 7000000000' in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('metrik = "anls"', "'metrik' is no option of score"),
        ('config = "other.toml"', "'config' is no option of score"),
        ("metric = ", "is not valid TOML"),
        ('visual-tokens = "four"', "'--visual-tokens': 'four' is not a valid integer"),
        ("visual_tokens = 0", "'--visual-tokens': 0 is not in the range x>=1"),
        ("[fit]", "has tables, but no [score]"),
        ("[score]\nmetrik = 3", "'metrik' is no option of score"),
        ('task = "ocr"\n[score]', "has tables; put 'task' into that of its command"),
    ],
)
def test_faults_of_a_config_file(bare, tmp_path, text, message):
    settings = tmp_path / "settings.toml"
    settings.write_text(text)
    done = vtc("score", bare, "--config", settings)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_closed_pipe_is_no_failure(tmp_path):
    table = tmp_path / "long.csv"
    table.write_text("x\n" + "some text\n" * 50_000)
    command = f"{sys.executable} -m vtc -q show {table} --format csv"
    script = f"set -o pipefail; {command} | head -n 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "x\n", "")


def test_an_interrupt_is_130():
    # A shell's background jobs ignore the signal, and so would what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    running = subprocess.Popen(
        [*VTC, "score", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    # Until it waits for its input, Python may not have come to our own handling.
    deadline = time.monotonic() + 5
    while "pipe_read" not in wait_channel(running.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    try:
        # Its input stays open: an end of input that overtakes the signal would be another story.
        running.wait(timeout=5)
    except subprocess.TimeoutExpired:  # the signal fell into an import that swallowed it
        running.send_signal(signal.SIGINT)
        running.wait(timeout=20)
    _, stderr = running.communicate()
    assert running.returncode == 130
    assert stderr.strip().endswith("Error: interrupted")
    assert "Traceback" not in stderr


def wait_channel(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/wchan") as file:
            return file.read()
    except OSError:
        return ""


def test_parquet_is_refused_on_a_terminal_alone(bare):
    arguments = [*VTC, "show", str(bare), "--format", "parquet"]
    master, terminal = pty.openpty()
    try:
        done = subprocess.run(arguments, stdout=terminal, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(terminal)
        os.close(master)
    assert done.returncode == 2
    assert "Parquet is binary: send it to a file with -o, or into a pipe" in done.stderr
    piped = subprocess.run(arguments, capture_output=True, check=True)
    assert piped.stdout[:4] == b"PAR1"


def test_quiet_says_nothing_and_changes_no_data(bare):
    usual, quiet = vtc("show", bare), vtc("-q", "show", bare)
    assert usual.stdout == quiet.stdout
    assert "2 rows" in usual.stderr
    assert quiet.stderr == ""
    behind = vtc("show", bare, "-q", "-n", "1")
    assert (behind.returncode, behind.stderr) == (0, "")


def test_flags_of_all_commands_stand_anywhere_but_behind_a_double_dash():
    words = ["show", "-v", "t.csv", "--debug", "-n", "3", "--", "-q"]
    assert cli._global_first(words) == ["-v", "--debug", "show", "t.csv", "-n", "3", "--", "-q"]


def test_termination_is_an_interrupt():
    """SIGTERM, which schedulers send, takes half-written outputs away as Ctrl-C does."""
    arguments = [sys.executable, "-m", "vtc", "fit", "-"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        # It reads stdin to its end: once it has taken more than a pipe holds, it is at work.
        assert waiting.stdin is not None
        waiting.stdin.write(b" " * 200_000)
        waiting.stdin.flush()
        waiting.terminate()
        _, words = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert words.decode().split() == ["Error:", "interrupted"]


def test_a_progress_bar_is_drawn_on_a_terminal_alone():
    code = (
        "from vtc import console\n"
        "with console.progress('counting', 3) as advance:\n"
        "    for number in range(3):\n"
        "        print(number)\n"
        "        advance()\n"
    )
    arguments = [sys.executable, "-c", code]
    silent = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert (silent.stdout, silent.stderr) == ("0\n1\n2\n", "")
    master, terminal = pty.openpty()
    try:
        drawn = subprocess.run(
            arguments, stdout=subprocess.PIPE, stderr=terminal, text=True, check=True
        )
        on_screen = os.read(master, 100_000).decode()
    finally:
        os.close(terminal)
        os.close(master)
    assert drawn.stdout == "0\n1\n2\n"
    assert "counting" in on_screen


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "bare.csv", "-o", "bare.csv", "--force"],
        ["score", "bare.csv", "-o", "../{folder}/bare.csv", "--force"],
        ["show", "bare.csv", "-o", "link.csv", "--force"],
        ["recommend", "--flops", "3e12", "--law", "bare.csv", "-o", "bare.csv", "--force"],
        ["fit", "bare.csv", "--profile", "bare.csv", "--force"],
    ],
)
def test_an_input_is_never_the_output(arguments, bare, monkeypatch, capsys):
    monkeypatch.chdir(bare.parent)
    (bare.parent / "link.csv").symlink_to(bare)
    with pytest.raises(SystemExit) as ended:
        cli.run([word.format(folder=bare.parent.name) for word in arguments])
    assert ended.value.code == 2
    assert "another name" in capsys.readouterr().err
    assert bare.read_text() == BARE


@pytest.mark.parametrize(
    ("text", "amount"),
    [("16GB", 16e9), ("500 MB", 5e8), ("24GiB", 24 * 2**30), ("1.5T", 1.5e12), (20 * 10**9, 2e10)],
)
def test_amounts_of_memory(text, amount):
    assert options.Bytes().convert(text, None, None) == amount


@pytest.mark.parametrize(
    ("text", "message"),
    [("16", "'16' has no unit; write 16GB"), ("0", "no amount"), ("1e999GB", "too large"),
     ("-3GB", "no amount"), ("1.2.3GB", "no amount"), ("20 apples", "no amount")],
)  # fmt: skip
def test_what_is_no_amount_of_memory(text, message):
    with pytest.raises(click.BadParameter, match=message):
        options.Bytes().convert(text, None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "bare.csv", "--config", "bad.toml"], "--config bad.toml: Invalid value for '--dr"),
        (["fit", "points.csv"], "points.csv, row 1, column 'visual_tokens': 'x' is not a number "
         "(rows of data count from 0)"),
        (["fit", "none.csv"], "none.csv does not exist\n"),
    ],
)  # fmt: skip
def test_where_a_fault_is(arguments, message, bare, monkeypatch, capsys):
    monkeypatch.chdir(bare.parent)
    (bare.parent / "bad.toml").write_text('draws = "a"\n')
    (bare.parent / "points.csv").write_text(
        "n_params_b,visual_tokens,error\n7,1,.5\n7,x,.4\n7,4,.3\n7,9,.3\n"
    )
    with pytest.raises(SystemExit) as ended:
        cli.run(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
