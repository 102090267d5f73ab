"""Standard streams that are closed or full, and outputs that cannot be: named, in one line."""

import os
import sys

import pytest

from vtc import cli
from vtc.errors import InputError, naming_stdout
from vtc.tables import atomic, write
from vtc.tables.read import read_rows
from vtc.tables.spec import Column, Table

SPEC = Table("t", 1, "t", (Column("x", "int", "x"),))


def test_a_closed_stdin_is_named(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="stdin is closed; name a file in place of -"):
        read_rows("-")


@pytest.mark.parametrize("fmt", [None, "csv", "parquet"])
def test_a_closed_stdout_is_refused_before_any_work(monkeypatch, fmt):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(InputError, match="stdout is closed; name a file with -o"):
        write.check_output("-", fmt, force=False)


def test_a_command_ends_with_one_line_when_stdout_is_closed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as ended:
        cli.run(["recommend", "--flops", "3e12"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("Error: stdout is closed")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_stdout_is_named(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space left") as failed:
            write.write_stdout([{"x": 1}], SPEC, "csv")
        assert failed.value.filename == "stdout"
        # What could not be written must not be tried again when the file closes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_a_closed_pipe_stays_one():
    with pytest.raises(BrokenPipeError) as closed, naming_stdout():
        raise BrokenPipeError
    assert closed.value.filename is None


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_folder_that_takes_no_files_is_refused_before_any_work():
    with pytest.raises(InputError, match=r"^/proc/x\.csv cannot be written .*; name another"):
        write.check_output("/proc/x.csv", None, force=False)


def test_a_failed_write_names_the_output_not_its_temporary_file(tmp_path):
    path = tmp_path / "t.csv"
    with pytest.raises(FileNotFoundError) as failed, atomic.replacing(path) as partial:
        partial.read_bytes()
    assert failed.value.filename == str(path)
