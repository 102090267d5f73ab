"""Compressors without training from the shell: as released if so asked, and never from a cache."""

import json
from pathlib import Path

import pytest
from conftest import TinyWorld
from shell import vtc

from vtc import cli
from vtc.commands.refit import asked
from vtc.errors import InputError
from vtc.model.assemble import assemble
from vtc.model.run import save_run
from vtc.tables.read import read_rows


@pytest.fixture(scope="module")
def folder(tiny_world: TinyWorld, tmp_path_factory) -> Path:
    """A run of the mlp, a benchmark of its own, and samples."""
    root = tmp_path_factory.mktemp("training_free")
    one = assemble(tiny_world.encoder, tiny_world.qwen, "mlp", seed=2)
    save_run(
        root / "run", one.model, one.processor, encoder=one.encoder, llm=one.llm,
        stage="projector", weights="compressor", seed=2,
    )  # fmt: skip
    rows = [
        {"id": str(n), "image": name, "question": "What colour ?", "answer": "red"}
        for n, name in enumerate(tiny_world.image_names[:2])
    ]
    (root / "rows.json").write_text(json.dumps(rows))
    (root / "own.toml").write_text(
        'name = "own"\ntask = "reasoning"\nrows = "rows.json"\nmetric = "anls"\n'
        f'images = "{tiny_world.images}"\nmax_new_tokens = 2\n'
        '[columns]\nid = "id"\nimage = "image"\nanswers = "answer"\n'
    )
    talk = [{"from": "human", "value": "<image>\nWhat ?"}, {"from": "gpt", "value": "red"}]
    samples = [{"id": n, "image": name, "conversations": talk} for n, name in enumerate(
        tiny_world.image_names[:2])]  # fmt: skip
    (root / "samples.json").write_text(json.dumps(samples))
    return root


def run_here(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.run([str(argument) for argument in arguments])
    return caught.value.code or 0  # type: ignore[return-value]


@pytest.fixture(scope="module")
def patches(tiny_world: TinyWorld, folder: Path) -> Path:
    """A cache of patches, as mlp reads them."""
    given = ("--encoder", tiny_world.encoder, "--images", tiny_world.images, "--compressor", "mlp")
    assert run_here("encode", folder / "samples.json", *given, "-o", folder / "patches") == 0
    return folder / "patches"


def test_as_released_by_a_flag_or_a_file(tiny_world: TinyWorld, folder: Path, monkeypatch, capsys):
    """The predictions say so, in words and in the run's name; the flag is the setting."""
    for name in ("visionzip", "prumerge", "prumerge+", "tome"):
        wanted = asked(name, [], 9, True)
        assert wanted is not None
        assert wanted.settings == {"reference_behaviour": True}
    done = vtc(
        "eval", "run", "--benchmark", "own.toml", "--compressor", "visionzip", "--visual-tokens",
        "9", "--reference-behaviour", "-o", "p.parquet", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for row in read_rows(folder / "p.parquet").rows:
        assert row["compressor_settings"] == "reference_behaviour=true"
        assert row["run_id"].endswith("+visionzip-v9-reference_behaviour=true")
    monkeypatch.chdir(folder)
    Path("ask.toml").write_text(
        'compressor = "prumerge"\nvisual-tokens = 5\nreference-behaviour = true\n'
    )
    picture = tiny_world.images / tiny_world.image_names[0]
    code = run_here("ask", "run", picture, "What ?", "--config", "ask.toml", "--max-new-tokens", 1)
    assert code == 0
    assert "1 x 5 visual tokens" in capsys.readouterr().err


def test_what_it_cannot_be_asked_of_is_named():
    with pytest.raises(InputError, match="--reference-behaviour is of a --compressor; name it"):
        asked(None, [], None, True)
    with pytest.raises(InputError, match="--reference-behaviour: divprune behaves in one way"):
        asked("divprune", [], 4, True)
    with pytest.raises(InputError, match="tome: say how many visual tokens an image has, with --v"):
        asked("tome", [], None)


@pytest.mark.parametrize("name", ["visionzip", "prumerge", "prumerge+", "tome"])
def test_caches_hold_none_of_what_they_read(tiny_world, folder, patches, monkeypatch, capsys, name):
    """One line, before anything is loaded or written."""
    monkeypatch.chdir(folder)
    given = ("--encoder", tiny_world.encoder, "--images", tiny_world.images, "--compressor", name)
    steps = (
        ("encode", "samples.json", *given, "-o", "cache"),
        ("train-projector", "samples.json", *given, "--llm", tiny_world.qwen, "--visual-tokens",
         4, "--features", patches, "-o", "trained"),
    )  # fmt: skip
    capsys.readouterr()
    for step in steps:
        assert run_here(*step) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "a feature cache holds patches alone; use it without a cache" in line
    assert not Path("cache").exists()
    assert not Path("trained").exists()


def test_an_evaluation_from_a_cache_is_refused(folder, patches, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    code = run_here(
        "eval", "run", "--benchmark", "own.toml", "--compressor", "visionzip", "--visual-tokens",
        4, "--features", patches, "-o", "no.parquet",
    )  # fmt: skip
    assert code == 2
    assert "hold patches alone" in capsys.readouterr().err
    assert not Path("no.parquet").exists()
