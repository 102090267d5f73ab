"""`vtc import` and `vtc export` from the shell, and what eval and show say of the results."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import TinyWorld
from shell import vtc

from vtc.commands.export import export
from vtc.commands.import_model import import_model
from vtc.errors import InputError
from vtc.model.adapters import lora_targets, wrap
from vtc.model.assemble import assemble
from vtc.model.export import to_hf_llava
from vtc.model.run import load_run, read_manifest, save_run
from vtc.tables.inspect import open_folder
from vtc.tables.read import read_rows


@pytest.fixture(scope="module")
def lora_run(tiny_world: TinyWorld, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("formats") / "run"
    one = assemble(tiny_world.encoder, tiny_world.qwen, "mlp", seed=1)
    wrapped = wrap(one.model, r=2, alpha=4, dropout=0.0, targets=lora_targets(one.model))
    save_run(
        folder, wrapped, one.processor, encoder=one.encoder, llm=one.llm,
        stage="finetune", weights="adapter", seed=1,
    )  # fmt: skip
    return folder


@pytest.fixture
def benchmark(tiny_world: TinyWorld, tmp_path) -> Path:
    rows = [
        {"id": n, "image": name, "question": "What colour is the square ?", "answer": "red"}
        for n, name in enumerate(tiny_world.image_names)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    path = tmp_path / "b.toml"
    path.write_text(
        'name = "tiny"\ntask = "ocr"\nrows = "rows.json"\nmetric = "anls"\n'
        f'images = "{tiny_world.images}"\nmax_new_tokens = 3\n'
        '[columns]\nid = "id"\nimage = "image"\nanswers = "answer"\n'
    )
    return path


def test_import_then_eval_and_show(lora_run, benchmark, tmp_path):
    to_hf_llava(lora_run, tmp_path / "llava", dtype=torch.float32)
    done = vtc("import", tmp_path / "llava", "--llm-name", "Qwen1.5-0.5B", "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].endswith(
        "Qwen1.5-0.5B (0.5 billion parameters), mlp, 36 visual tokens"
    )
    out = tmp_path / "p.parquet"
    done = vtc(
        "eval", tmp_path / "run", lora_run, "--benchmark", benchmark, "-o", out, "--load-4bit"
    )
    assert done.returncode == 0, done.stderr
    rows = read_rows(out)
    assert rows.footer["settings"]["load_4bit"] is True
    assert [row["seed"] for row in rows.rows] == [None] * 6 + [1] * 6
    shown = open_folder(tmp_path / "run")
    assert shown.summary.endswith("a run, stage import")
    assert {row["key"]: row["value"] for row in shown.rows}["llm.name"] == "Qwen1.5-0.5B"


def test_export_merges(lora_run, tmp_path):
    done = vtc("export", lora_run, "--merge", "--dtype", "bf16", "-o", tmp_path / "whole")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == f"wrote {tmp_path / 'whole'}\n"
    assert read_manifest(tmp_path / "whole")["weights"] == "full"
    assert load_run(tmp_path / "whole", dtype=torch.bfloat16).model.dtype == torch.bfloat16
    again = vtc("export", lora_run, "--merge", "-o", tmp_path / "whole")
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "--force" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["RUN"], "nothing to do"),
        (["RUN", "--merge"], "-o, the folder"),
        (["RUN", "--merge", "--to", "hf-llava", "-o", "x"], "give one"),
        (["RUN", "--push", "me/run", "-o", "x"], "-o needs --merge or --to"),
        (["RUN", "--to", "gguf", "-o", "x"], "'gguf' is not 'hf-llava'"),
    ],
)
def test_export_that_cannot_be_meant(arguments, fault):
    done = CliRunner().invoke(export, arguments)
    assert done.exit_code == 2
    assert fault in done.output


def test_faults_come_before_any_model(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no weights"):
        CliRunner().invoke(
            import_model, [str(tmp_path / "empty"), "-o", str(tmp_path / "run")],
            catch_exceptions=False,
        )  # fmt: skip
    with pytest.raises(InputError, match="is no finished run"):
        CliRunner().invoke(
            export, [str(tmp_path / "empty"), "--merge", "-o", str(tmp_path / "run")],
            catch_exceptions=False,
        )  # fmt: skip
    assert not (tmp_path / "run").exists()
