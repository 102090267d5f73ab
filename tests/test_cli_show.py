"""`vtc show`: any table, run, feature folder or world; and conversion between formats."""

import json
from subprocess import CompletedProcess

import pytest
import shell

from vtc.tables import specs
from vtc.tables.inspect import open_folder
from vtc.tables.provenance import footer
from vtc.tables.write import write_rows

LOG = [
    {
        "step": step,
        "epoch": step / 20,
        "loss": 1 / step,
        "learning_rate": 1e-3,
        "samples_seen": step * 8,
        "supervised_tokens": step * 24,
        "seconds": 0.5,
    }
    for step in range(1, 21)
]


def vtc(*arguments: object) -> CompletedProcess[str]:
    return shell.vtc("show", *arguments)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "train_log.parquet"
    write_rows(LOG, specs.TRAIN_LOG, path, footer=footer(settings={"lr": 1e-3}, seed=7))
    return path


def test_the_head_of_a_table_without_what_is_the_same_everywhere(log):
    done = vtc(log)
    lines = done.stdout.splitlines()
    assert len(lines) == 11
    assert lines[0].split() == ["step", "epoch", "loss", "samples_seen", "supervised_tokens"]
    assert "train_log v1" in done.stderr
    assert "20 rows" in done.stderr
    assert "10 more rows: -n 20 shows all" in done.stderr
    assert "the same in every row: learning_rate=0.001, grad_norm=-, seconds=0.5" in done.stderr


def test_rows_and_columns_are_chosen(log):
    done = vtc(log, "-n", 2, "--columns", "loss,step", "--format", "csv")
    assert done.stdout == "loss,step\n1.0,1\n0.5,2\n"
    done = vtc(log, "--columns", "loss,stepp")
    assert done.returncode == 2
    assert "no column 'stepp'; there are step, epoch" in done.stderr


def test_conversion_keeps_all_rows(log, tmp_path):
    out = tmp_path / "log.jsonl"
    assert vtc(log, "-o", out).returncode == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows == [specs.TRAIN_LOG.complete(row) for row in LOG]


def test_columns_are_described_and_the_footer_shown(log):
    described = vtc(log, "--describe").stdout
    assert "mean loss since the last row: nats a supervised token" in described
    assert "nats" in described
    found = json.loads(vtc(log, "--footer").stdout)
    assert (found["table"], found["seed"], found["settings"]) == ("train_log", 7, {"lr": 1e-3})


def test_a_run_shows_what_its_compressor_and_its_questions_are_set_to(tmp_path):
    manifest = {"run_id": "r", "stage": "projector", "compressor": "quecc", "visual_tokens": 4}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    def shown(config: dict | None, processor: dict) -> dict:
        (tmp_path / "config.json").write_text(json.dumps(config) if config is not None else "{")
        (tmp_path / "processor_config.json").write_text(json.dumps(processor))
        found = {row["key"]: row["value"] for row in open_folder(tmp_path).rows}
        assert list(found)[:3] == ["run_id", "stage", "compressor"]
        assert list(found)[-1] == "visual_tokens"
        return {key: value for key, value in found.items() if key not in manifest}

    settings = {"key_levels": [1, 2], "heads": 4}
    assert shown(
        {"compressor_settings": settings}, {"query_scope": "first", "query_position": "before"}
    ) == {
        "compressor_settings.key_levels": "[1, 2]",
        "compressor_settings.heads": "4",
        "query_scope": "first",
        "query_position": "before",
    }
    assert shown({"compressor_settings": None}, {"query_position": "after"}) == {}
    assert shown(None, {"query_scope": None}) == {}


def test_folders_show_their_manifest(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    assert "no run, features or world, or unfinished" in vtc(run).stderr
    shapes = {f"width_{number}": number for number in range(12)}
    manifest = {"run_id": "r1", "stage": "projector", "llm": {"name": "tiny", **shapes}}
    (run / "manifest.json").write_text(json.dumps({**manifest, "footer": {"seed": 3}}))
    done = vtc(run)
    assert "a run, stage projector" in done.stderr
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["run_id", "r1"],
        ["stage", "projector"],
        ["llm.name", "tiny"],
        *([f"llm.{name}", str(value)] for name, value in shapes.items()),
    ]
    assert json.loads(vtc(run, "--footer").stdout) == {"seed": 3}
    (run / "manifest.json").write_text('{"run_id": ')
    done = vtc(run)
    assert done.returncode == 2
    assert "manifest.json: broken JSON" in done.stderr
    (run / "manifest.json").write_text("{}")
    done = vtc(run)
    assert done.returncode == 2
    assert "is no manifest of a run, of features or of a world" in done.stderr


def test_bare_tables_and_terminal_codes(tmp_path):
    path = tmp_path / "bare.csv"
    path.write_text("a,b\n[bold]1,\x1b[31mred\n2,blue\n")
    done = vtc(path)
    assert done.stdout.splitlines()[1].split() == ["[bold]1", r"\x1b[31mred"]
    done = vtc(path, "--footer")
    assert done.returncode == 2
    assert "has no footer: vtc did not write it" in done.stderr
