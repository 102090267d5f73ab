"""The two training commands as a user runs them."""

import json
import os
import re
import signal
import tomllib
from importlib.util import find_spec

import pytest
from shell import vtc
from train_samples import write

from vtc import cli
from vtc.tables import specs
from vtc.tables.read import read_rows

QUICK = ("--batch-size", "4", "--accumulate", "1", "--max-steps", "2", "--log-every", "1")


def run_here(*arguments):
    """The command in this process, where torch is loaded already; its exit code."""
    with pytest.raises(SystemExit) as caught:
        cli.run([str(argument) for argument in arguments])
    return caught.value.code


def backbones(world):
    return ("--encoder", world.encoder, "--llm", world.qwen, "--images", world.images)


@pytest.fixture(scope="module")
def trained(tiny_world, tmp_path_factory):
    """A folder where both stages have run: V = 1 and 4, stage 2 with independent questions."""
    folder = tmp_path_factory.mktemp("trained")
    write(folder)
    steps = (
        ("check-data", "samples.json", "--images", tiny_world.images, "-o", "samples.parquet"),
        ("encode", "samples.parquet", "--encoder", tiny_world.encoder, "-o", "features"),
        ("train-projector", "samples.parquet", "--features", "features", "--seed", "3",
         *backbones(tiny_world), "--visual-tokens", "1,4", *QUICK, "-o", "runs"),
        ("finetune", "runs/tokenpacker-v1", "runs/tokenpacker-v4", "--samples", "samples.parquet",
         "--turns", "independent", "--max-questions", "1", "--features", "features",
         *QUICK, "-o", "tuned"),
    )  # fmt: skip
    here = os.getcwd()
    os.chdir(folder)
    for step in steps[:2]:
        assert run_here(*step) == 0
    os.chdir(here)
    for step in steps[2:]:
        done = vtc(*step, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
    return folder


def test_every_v_leaves_a_run_folder(trained, tiny_world):
    for visual_tokens in (1, 4):
        manifest = json.loads(
            (trained / f"runs/tokenpacker-v{visual_tokens}/manifest.json").read_text()
        )
        assert manifest["visual_tokens"] == visual_tokens
        assert (manifest["stage"], manifest["weights"]) == ("projector", "compressor")
        assert manifest["seed"] == 3
        assert manifest["footer"]["settings"]["learning_rate"] == 1e-3
        log = read_rows(trained / f"runs/tokenpacker-v{visual_tokens}/train_log.parquet")
        assert [row["step"] for row in log.rows] == [1, 2]
        assert read_rows(
            trained / f"runs/tokenpacker-v{visual_tokens}/train_log.parquet", specs.TRAIN_LOG
        ).rows


def test_finetuned_runs_name_their_parents_and_load(trained):
    from vtc.model.run import load_run

    run_folder = load_run(trained / "tuned/tiny-qwen-tokenpacker-v4")
    parent = json.loads((trained / "runs/tokenpacker-v4/manifest.json").read_text())
    assert run_folder.manifest["parent"] == parent["run_id"]
    assert run_folder.manifest["weights"] == "full"
    assert run_folder.model.compressor.visual_tokens == 4


def test_dry_run_trains_nothing(trained, tiny_world):
    done = vtc(
        *("train-projector", "samples.parquet", *backbones(tiny_world), "--visual-tokens", "9"),
        *("--batch-size", "4", "--accumulate", "2", "--dry-run", "-o", "planned"),
        cwd=trained,
    )
    assert done.returncode == 0, done.stderr
    assert "# steps = 3\n" in done.stdout
    assert "# output = planned/tokenpacker-v9\n" in done.stdout
    assert not (trained / "planned").exists()
    costs = [line for line in done.stdout.splitlines() if line.startswith("# estimate = ")]
    pattern = r"# estimate = %s: [\d,]+ tokens, [\d.]+ [MGT]FLOP, 0\.\d+ GiB of memory, .* MB of .*"
    assert re.fullmatch(pattern % "planned/tokenpacker-v9", costs[0])
    assert re.fullmatch(pattern % "in all", costs[1])


def test_dry_run_lists_every_compressor_v_and_seed(trained, tiny_world, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    several = (
        *("train-projector", "samples.parquet", *backbones(tiny_world), "--dry-run"),
        *("--compressor", "avgpool,tokenpacker", "--visual-tokens", "4", "--seed", "0,7"),
    )
    assert run_here(*several, "-o", "planned") == 0
    printed = capsys.readouterr().out.splitlines()
    names = [f"{name}-v4-s{seed}" for seed in (0, 7) for name in ("avgpool", "tokenpacker")]
    assert [line for line in printed if line.startswith("# output = ")] == [
        f"# output = planned/{name}" for name in names
    ]
    assert "seed = [0, 7]" in printed
    assert len([line for line in printed if line.startswith("# estimate = ")]) == 5
    assert run_here(*several, "--weights", "0.5", "-o", "planned") == 2
    assert "--weights draws other samples for every seed" in capsys.readouterr().err
    for flags, message in (
        (("--seed", "0,-1"), "every number must be at least 0"),
        (("--seed", "4294967296"), "every number must be at most 4294967295"),
        (("--compressor", "mlp,mlp"), "names one twice"),
        (("--compressor", "mlp,"), "is not a list of names"),
        (("--compressor", "mlp,tokenpacker"), "mlp cannot make 4 visual tokens"),
    ):
        assert run_here(*several, *flags, "-o", "planned") == 2
        assert message in capsys.readouterr().err


def test_dry_run_of_finetune_names_the_folders(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    run_command = ("finetune", "runs/tokenpacker-v1", "--samples", "samples.parquet")
    lora = ("--method", "lora", "--dry-run", "-o", "planned")
    assert run_here(*run_command, *lora, "--gpu", "RTX 4090") == 0
    printed = capsys.readouterr().out
    assert 'method = "lora"\n' in printed
    assert "# output = planned/tiny-qwen-tokenpacker-v1\n" in printed
    assert re.search(r"hours of rtx4090 at 35%, \d\.\d+ GiB of memory \(fits\)", printed)
    assert run_here(*run_command, *lora, "--gpu", "abacus") == 2
    shown = capsys.readouterr()
    assert (shown.out, "--gpu abacus is unknown" in shown.err) == ("", True)


def test_what_a_dry_run_prints_is_a_config_file(trained, tiny_world, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    projector = (
        *(*backbones(tiny_world), "--visual-tokens", "4,9", "--lr", "2e-5", "--seed", "0,7"),
        *("--compressor", "resampler,qformer", "--compressor-setting", "layers=2", "--pack"),
        *("--max-steps", "3", "--auto-batch", "--max-memory", "20GB", "-o", "planned"),
    )
    tuning = ("--samples", "samples.parquet", "--method", "lora", "--lora-r", "4", "-o", "planned")
    for command, source, given in (
        ("train-projector", "samples.parquet", projector),
        ("finetune", "runs/tokenpacker-v1", tuning),
    ):
        assert run_here(command, source, *given, "--dry-run") == 0
        printed = capsys.readouterr().out
        (trained / "said.toml").write_text(printed)
        assert run_here(command, source, "--config", "said.toml", "--dry-run") == 0
        assert capsys.readouterr().out == printed
        said = tomllib.loads(printed)
        assert said["out"] == "planned"
        expected = {"lr": 2e-5, "visual-tokens": [4, 9], "max-memory": 20 * 10**9, "pack": True}
        expected = expected if command == "train-projector" else {"lora-r": 4, "method": "lora"}
        assert {name: said[name] for name in expected} == expected


def test_lora_leaves_a_whole_merged_model(trained, monkeypatch):
    from vtc.model.run import load_run

    monkeypatch.chdir(trained)
    code = run_here(
        *("finetune", "runs/tokenpacker-v1", "--samples", "samples.json", "--method", "lora"),
        *("--images", trained_images(trained), "--lora-r", "4", *QUICK, "-o", "lora"),
    )
    assert code == 0
    names = load_run(trained / "lora/tiny-qwen-tokenpacker-v1").model.state_dict()
    assert not any("lora" in name for name in names)


def test_lora_settings_of_a_config_file_need_a_method_unless_the_command_line_has_one(
    trained, monkeypatch, capsys
):
    monkeypatch.chdir(trained)
    command = ("finetune", "runs/tokenpacker-v1", "--samples", "samples.parquet", "--dry-run")
    for text, more, code in (
        ("lora-r = 4", (), 2),
        ("lora-r = 4", ("--method", "qlora"), 0),
        ("lora-r = 4", ("--method", "full"), 0),
        ('lora-r = 4\nmethod = "lora"', (), 0),
        ('lora-r = 4\nmethod = "lora"', ("--method", "full"), 0),
    ):
        (trained / "lora.toml").write_text(f"[finetune]\n{text}\n")
        assert run_here(*command, "--config", "lora.toml", *more, "-o", "planned") == code
        words = capsys.readouterr().err
        assert ("--lora-r in the --config file needs --method lora or qlora" in words) == code / 2


def trained_images(folder):
    return read_rows(folder / "samples.parquet").footer["settings"]["image_root"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train-projector", "samples.parquet", "--gpu", "l4"), "--gpu is for --dry-run alone"),
        (("train-projector", "absent.json"), "absent.json does not exist"),
        (("train-projector", "samples.parquet", "-o", "runs"), "tokenpacker-v4 exists"),
        (("train-projector", "samples.parquet", "-o", "samples.json"), "samples.json is a file"),
        (("train-projector", "samples.parquet", "--visual-tokens", "5"), "cannot make 5 visual"),
        (("train-projector", "samples.parquet", "--lr", "0"), "--lr 0.0 must be above 0"),
        (("train-projector", "samples.parquet", "--keep", "0"), "--keep 0 must be at least 1"),
        (("train-projector", "samples.parquet", "--force", "--resume"), "--resume goes on; give"),
        pytest.param(
            ("train-projector", "samples.parquet", "--report-to", "trackio"),
            "--report-to trackio: not installed; pip install trackio",
            marks=pytest.mark.skipif(find_spec("trackio") is not None, reason="installed here"),
        ),
        (("train-projector", "samples.parquet", "--features", "absent"), "features absent"),
        (("train-projector", "text.json"), "sample t (and 1 more) has no image; stage 1"),
        (("finetune", "absent", "--samples", "samples.parquet"), "run absent does not exist"),
        (
            ("finetune", "runs/tokenpacker-v1", "--samples", "samples.parquet",
             "--max-questions", "3"),
            "--max-questions needs --turns independent",
        ),
        (
            ("finetune", "runs/tokenpacker-v1", "--samples", "samples.parquet", "--lora-r", "128"),
            "--lora-r needs --method lora or qlora; give both, or leave it out",
        ),
        (
            ("train-projector", "samples.parquet", "--align-scale", "2"),
            "--align-scale needs --objective align",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(
    trained, tiny_world, arguments, message, monkeypatch, capsys
):
    monkeypatch.chdir(trained)
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]
    rows = [{"id": name, "conversations": turns} for name in "tu"]
    (trained / "text.json").write_text(json.dumps(rows))
    more = ()
    if arguments[0] == "train-projector":
        more = (*backbones(tiny_world), *QUICK)
        more += () if "--visual-tokens" in arguments else ("--visual-tokens", "4")
    more += () if "-o" in arguments else ("-o", "elsewhere")
    assert run_here(*arguments, *more) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (trained / "elsewhere" / "tokenpacker-v4").exists()


def test_sigterm_exits_with_143_and_resume_ends_the_run(trained, tiny_world, monkeypatch, capsys):
    from vtc.train.trainer import VtcTrainer

    monkeypatch.chdir(trained)
    command = (
        *("train-projector", "samples.parquet", *backbones(tiny_world), "--visual-tokens", "4"),
        *(*QUICK, "-o", "stopped"),
    )
    step = VtcTrainer.training_step

    def told_to_stop(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(VtcTrainer, "training_step", told_to_stop)
        assert run_here(*command) == 143
    *_, last = capsys.readouterr().err.splitlines()
    assert last == (
        "Error: stopped by SIGTERM after step 1 of 2, which is saved in "
        "stopped/tokenpacker-v4.training; --resume goes on from there"
    )
    assert run_here(*command) == 2
    assert "is a checkpoint of an unfinished training" in capsys.readouterr().err
    assert run_here(*command, "--resume") == 0
    assert [path.name for path in (trained / "stopped").iterdir()] == ["tokenpacker-v4"]
