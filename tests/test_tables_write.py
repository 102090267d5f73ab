"""Writing is whole or not at all, and nothing that is finished is lost."""

import os
import stat
from pathlib import Path

import pytest

from vtc.errors import InputError
from vtc.tables import atomic, inspect
from vtc.tables.provenance import footer
from vtc.tables.spec import Column, Table
from vtc.tables.write import check_output, resolve_format, write_rows

SPEC = Table("t", 1, "t", (Column("x", "int", "x"),))


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("old")

    def interrupted():
        with atomic.replacing(path) as partial:
            partial.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["t.csv"]


def test_an_existing_output_is_refused_and_force_overwrites_it(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("old")
    with pytest.raises(InputError, match=r"t\.csv exists; give another name, or --force"):
        write_rows([{"x": 1}], SPEC, path)
    assert path.read_text() == "old"
    write_rows([{"x": 1}], SPEC, path, force=True)
    assert path.read_text() == "x\n1\n"
    assert os.listdir(tmp_path) == ["t.csv"]


def test_a_link_is_followed_not_replaced(tmp_path):
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    write_rows([{"x": 1}], SPEC, link, force=True)
    assert link.is_symlink()
    assert target.read_text() == "x\n1\n"


def test_a_link_to_a_folder_is_followed_too(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    (target / "old").touch()
    link.symlink_to(target, target_is_directory=True)
    with atomic.replacing_folder(link, force=True) as partial:
        (partial / "new").touch()
    assert link.is_symlink()
    assert os.listdir(link) == ["new"]
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_folders_around_a_folder_are_made_and_go_if_nothing_came_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new = Path("runs/big/one")
    atomic.refuse_existing(new, False, folder=True)
    with pytest.raises(ZeroDivisionError), atomic.replacing_folder(new) as partial:
        (partial / "half").write_text(str(1 / 0))
    assert not list(tmp_path.iterdir())
    with atomic.replacing_folder(new) as partial:
        (partial / "whole").write_text("x")
    assert [str(path) for path in sorted(Path().rglob("*"))] == [
        *("runs", "runs/big", "runs/big/one", "runs/big/one/whole")
    ]
    with pytest.raises(ZeroDivisionError), atomic.replacing_folder("runs/other/two"):
        _ = 1 / 0
    assert [path.name for path in Path("runs").iterdir()] == ["big"]
    for bad, words in (
        ("runs/big/one/whole/a/b", "runs/big/one/whole is a file; the output b needs a folder"),
        (f"runs/none/{'x' * 300}", "cannot be written .File name too long"),
    ):
        with pytest.raises(InputError, match=words):
            atomic.refuse_existing(bad, False, folder=True)
    # A table's folder must be there: a name that is mistyped would else be a new one.
    with pytest.raises(InputError, match=r"folder nowhere of the output t.* does not exist"):
        atomic.refuse_existing("nowhere/t.csv", False)


def test_a_new_file_has_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    write_rows([{"x": 1}], SPEC, tmp_path / "t.csv")
    assert stat.S_IMODE((tmp_path / "t.csv").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize(
    ("out", "fmt", "message"),
    [
        ("t.txt", None, r"no format has the suffix '\.txt'"),
        ("t.csv", "table", "format 'table' is for the screen"),
        ("t.csv", "parquet", r"t\.csv is named as csv, but --format says parquet"),
        ("t.JSONL", "csv", "is named as json, but --format says csv"),
        ("none/t.csv", None, "folder .*none of the output t.* does not exist"),
        (".", "csv", "is a folder"),
        ("/dev/null", "csv", "neither a file nor a folder; use - for stdout"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_any_work(tmp_path, out, fmt, message):
    with pytest.raises(InputError, match=message):
        check_output(tmp_path / out, fmt, force=True)


def test_the_format_follows_the_suffix():
    names = [None, "-", "a.parquet", "a.CSV", "a.json", "a.jsonl"]
    found = [resolve_format(name, None) for name in names]
    assert found == ["table", "table", "parquet", "csv", "json", "json"]
    asked = [("-", "csv"), ("a.txt", "csv"), ("a", "parquet"), ("a.jsonl", "json")]
    assert [resolve_format(*one) for one in asked] == [fmt for _, fmt in asked]


def test_the_footer_hashes_its_inputs(tmp_path):
    data = tmp_path / "in.csv"
    data.write_text("abc")
    found = footer(settings={"a": 1}, inputs=[data, "-"], seed=5)
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert found["inputs"] == [{"path": str(data), "sha256": sha}]
    assert (found["seed"], found["settings"]) == (5, {"a": 1})


def test_bare_rows_get_types_that_hold_them():
    rows = [
        {"a": 1, "b": 1, "c": True, "d": ["x"], "e": [1, 2.5], "f": {"g": 1}, "h": 1},
        {"a": 2, "b": 0.5, "c": None, "d": [], "e": [], "f": "text", "h": True},
    ]
    typed, spec = inspect.guess(rows)
    kinds = {column.name: column.type for column in spec.columns}
    assert kinds == {
        "a": "int",
        "b": "float",
        "c": "bool",
        "d": "list<string>",
        "e": "list<float>",
        "f": "string",
        "h": "string",
    }
    assert typed[0]["f"] == '{"g": 1}'


def test_a_trial_that_another_process_sweeps_away_is_no_fault(tmp_path, monkeypatch):
    out, close = tmp_path / "out", os.close

    def close_and_sweep(descriptor):
        close(descriptor)
        assert list(tmp_path.iterdir())
        atomic.sweep(out)

    monkeypatch.setattr(os, "close", close_and_sweep)
    atomic.refuse_existing(out, False)
    assert not list(tmp_path.iterdir())
