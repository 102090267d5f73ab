"""Recipes stay true to the program: their settings are flags, their steps are there."""

import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import click
import pytest
from train_samples import write

from vtc import cli
from vtc.cli import main

RECIPES = Path(__file__).parent.parent / "recipes"
STUDIES = sorted(path.parent for path in RECIPES.rglob("study.toml"))
WHOLE = [path for name in ("paper", "modern") for path in sorted(RECIPES.glob(f"{name}/*.toml"))]
STEPS = sorted(
    set(RECIPES.rglob("*.toml"))
    - set(RECIPES.glob("benchmarks/*.toml"))
    - {study / "study.toml" for study in STUDIES}
    - set(WHOLE)
)
STUDY_KEYS = {"sizes", "visual_tokens", "seeds", "holdout", "text_tokens", "flops", "finetune_lr"}


def flags_of(command: click.Command) -> set[str]:
    return {option for param in command.params for option in param.opts}


def flags_in(words: str) -> set[str]:
    """The long flags that stand in a line of a shell."""
    return set(re.findall(r"(?:^|(?<=\s))--[a-z0-9-]+", words))


def test_there_are_studies_and_steps():
    assert {study.name for study in STUDIES} >= {"tiny", "quick", "full"}
    assert len(STEPS) >= 3 * len(STUDIES)


@pytest.mark.parametrize("path", STEPS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_settings_of_a_step_are_flags_of_its_command(path):
    command = main.commands[path.stem]
    settings = tomllib.loads(path.read_text(encoding="utf-8"))
    assert settings
    assert {f"--{key}" for key in settings} <= flags_of(command)
    # click converts and range-checks each value as if it were typed.
    for param in command.params:
        for key in settings:
            if f"--{key}" in param.opts:
                param.type_cast_value(click.Context(command), settings[key])


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_names_its_sizes_tokens_and_seeds(study):
    plan = tomllib.loads((study / "study.toml").read_text(encoding="utf-8"))
    assert set(plan) == STUDY_KEYS
    assert list(plan["finetune_lr"]) == plan["sizes"]
    assert all(144 % tokens == 0 for tokens in plan["visual_tokens"])


def test_the_snakefile_plans_every_step(tmp_path):
    pytest.importorskip("snakemake")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(RECIPES / "study/Snakefile")]
    command += ["--config", "study=quick", "--directory", str(tmp_path), "--cores", "1", "-n"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE))
    assert counts["lab"] == counts["encode"] == counts["fit"] == "1"
    assert counts["train_projector"] == counts["finetune"] == counts["eval"] == "4"


def test_the_shell_pipeline_parses_and_names_every_step():
    script = RECIPES / "study/study.sh"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    steps = set(re.findall(r"^ *vtc ([a-z-]+)", script.read_text(encoding="utf-8"), re.MULTILINE))
    assert steps == set(main.commands) - {
        "show", "estimate", "import", "export", "benchmarks", "ask", "compressors",
        "catalog", "profile", "plan", "compare",
    }  # fmt: skip


@cache
def planned_rows(path):
    """The estimate of every run of a recipe, each on the GPU its job names."""
    from vtc.catalog import gpus
    from vtc.commands.estimate import jobs_of
    from vtc.cost.job import estimate
    from vtc.cost.recipe import read_recipes

    plans = read_recipes([path])
    return [estimate(job, gpus.find(plan.gpu)) for plan in plans for job in jobs_of(plan)]


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_whole_recipe_fits_its_gpus_with_exact_batches(path):
    rows = planned_rows(path)
    batches = {(row["command"], row["batch_size"] * row["accumulate"]) for row in rows}
    second = 256 if path.parent.name == "paper" else 128
    assert batches == {("train-projector", 256), ("finetune", second)}
    assert [row["llm"] for row in rows if not row["fits"]] == []
    # The paper has QueCC's scores up to 36.
    most = 36 if path.stem == "quecc" else 576
    wanted = {v for v in (1, 4, 16, 36, 64, 144, 576) if v <= most}
    assert {row["visual_tokens"] for row in rows} == wanted
    assert {row["steps"] for row in rows if row["command"] == "train-projector"} == {2181}


def test_the_papers_recipes_are_of_all_its_llms():
    of = {path.stem: {row["llm"] for row in planned_rows(path)} for path in WHOLE}
    sizes = {f"Qwen/Qwen1.5-{size}B-Chat" for size in ("0.5", "1.8", "4", "7", "14")}
    assert of["lora"] == of["qlora"] == sizes | {"lmsys/vicuna-7b-v1.5"}
    assert of["full"] == of["lora"] - {"Qwen/Qwen1.5-14B-Chat"}


def test_qlora_fits_every_size_on_24_gb():
    rows = planned_rows(RECIPES / "paper/qlora.toml")
    assert {row["gpu"] for row in rows} == {"rtx4090"}
    assert all(row["fits"] and row["memory_peak"] < 24 * 2**30 for row in rows)
    seven = [r for r in rows if "-7B" in r["llm"] and r["command"] == "finetune"]
    assert len(seven) == 7
    assert max(row["memory_peak"] for row in seven) < 16 * 2**30


def test_the_papers_hyperparameters_are_llavas():
    for path in WHOLE[:3]:
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
        first, second = recipe["train-projector"], recipe["finetune"]
        assert (first["lr"], first["template"], first["image-mode"]) == (1e-3, "plain", "crop")
        assert second["lr"] == (2e-5 if path.stem == "full" else 2e-4)
        assert (second["method"], second["image-mode"]) == (path.stem, "pad")
        for stage in (first, second):
            assert (stage["warmup"], stage["weight-decay"], stage["epochs"]) == (0.03, 0, 1)
            assert stage["max-length"] == 2048
        if path.stem != "full":
            shape = [second[f"lora-{name}"] for name in ("r", "alpha", "dropout")]
            assert shape == [128, 256, 0.05]
            assert second["compressor-lr"] == 2e-5


def test_a_recipe_is_a_config_file_of_both_commands(capsys):
    for command in ("train-projector", "finetune"):
        asked = ["run", "--config", str(RECIPES / "paper/lora.toml"), "-o", "out"]
        context = main.commands[command].make_context(command, asked, resilient_parsing=True)
        assert context.params["batch_size"] == (32 if command == "train-projector" else 2)
        assert context.params["gradient_checkpointing"] is True
    with pytest.raises(SystemExit) as caught:
        cli.run(["eval", "run", "--config", str(RECIPES / "paper/lora.toml")])
    assert caught.value.code == 2
    assert "has tables, but no [eval]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "n_llms", "last"),
    [
        (("method=full",), 5, "all"),
        (("method=qlora", "llms=Qwen1.5-14B-Chat", "benchmarks=benchmarks"), 1, "fit"),
    ],
)
def test_the_papers_study_plans_every_step(tmp_path, settings, n_llms, last):
    pytest.importorskip("snakemake")
    for name in ("blip_laion_cc_sbu_558k.json", "llava_v1_5_mix665k.json"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "gqa.toml").write_text("")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(RECIPES / "paper/Snakefile")]
    command += ["--directory", str(tmp_path), "--cores", "1", "-n", "-p"]
    command += ["--config", "data=.", *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    planned = done.stdout + done.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", planned, re.MULTILINE))
    assert counts["check_data"] == "2"
    assert counts["train_projector"] == counts["finetune"] == str(n_llms)
    assert last in counts
    for step, words in re.findall(r"vtc ([a-z-]+) (.*)", planned):
        assert flags_in(words) <= flags_of(main.commands[step])
    trained = re.findall(r"vtc train-projector .*", planned)
    assert len(set(trained)) == n_llms
    if n_llms == 5:
        assert sum("lora.toml --llm Qwen/Qwen1.5-14B-Chat" in line for line in trained) == 1
    else:
        words = "--load-4bit --batch-size 4 --accumulate 64 --resume -o stage1/Qwen1.5-14B-Chat"
        assert words in trained[0]
        assert "stage2/Qwen1.5-14B-Chat/Qwen1.5-14B-Chat-tokenpacker-v576" in planned


def test_the_reproduction_parses_and_its_flags_are_flags():
    script = RECIPES / "paper/reproduce.sh"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    text = script.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^vtc ([a-z-]+) (.*)", text, re.MULTILINE)
    assert [command for command, _ in lines] == [
        "estimate", "check-data", "check-data", "train-projector", "finetune", "eval", "score",
    ]  # fmt: skip
    for command, words in lines:
        assert flags_in(words) <= flags_of(main.commands[command])


@pytest.mark.parametrize(("scores", "code"), [((0.41, 0.412), 0), ((0.45, 0.45), 1)])
def test_a_cell_is_compared_with_the_published_one(tmp_path, scores, code):
    table = tmp_path / "scores.csv"
    rows = [f"reasoning,Qwen1.5-0.5B-Chat,16,{score}\n" for score in scores]
    table.write_text("task,backbone,visual_tokens,score\n" + "".join(rows))
    command = [sys.executable, str(RECIPES / "paper/compare.py"), str(table)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "published 0.4078" in done.stdout


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_recipe_trains_both_stages(tiny_world, tmp_path, monkeypatch, method):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    recipe = ("--config", RECIPES / f"paper/{method}.toml", "--images", tiny_world.images)
    short = ("--max-steps", 1, "--batch-size", 2, "--accumulate", 2, "--resume")
    backbones = ("--encoder", tiny_world.encoder, "--llm", tiny_world.qwen)
    steps = (
        ("train-projector", "samples.json", *recipe, *backbones, "--visual-tokens", 4, *short,
         "-o", "stage1"),
        ("finetune", "stage1/tokenpacker-v4", "--samples", "samples.json", *recipe, *short,
         "-o", "stage2"),
    )  # fmt: skip
    for step in steps:
        with pytest.raises(SystemExit) as caught:
            cli.run([str(word) for word in step])
        assert caught.value.code == 0
    run = tmp_path / "stage2/tiny-qwen-tokenpacker-v4/manifest.json"
    settings = json.loads(run.read_text())["footer"]["settings"]
    assert settings["method"] == method
    assert settings["image_mode"] == "pad"
    assert settings["learning_rate"] == (2e-5 if method == "full" else 2e-4)
    assert settings["gradient_checkpointing"] is True


def test_the_study_of_compressors_trains_every_one_and_its_flags_are_flags():
    script = RECIPES / "study/compressors.sh"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    text = script.read_text(encoding="utf-8").replace("\\\n", " ")
    trained = set(re.split(r"[,\s]+", " ".join(re.findall(r"--compressor ([a-z0-9,-]+)", text))))
    from vtc.compress.choices import KNOWN

    # Between encoder and LLM alone: one that fuses the text has layers of the LLM's own.
    projectors = {
        name
        for name, known in KNOWN.items()
        if not known.training_free and not getattr(known, "fuses", False)
    }
    assert trained == projectors
    check_flags(text)


def test_what_goes_on_behind_it_gives_each_training_free_compressor_and_its_flags_are_flags():
    script = RECIPES / "study/compressors_more.sh"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    text = script.read_text(encoding="utf-8").replace("\\\n", " ")
    from vtc.compress.choices import KNOWN

    before = {name for name, one in KNOWN.items() if one.training_free and one.schedule is None}
    assert all(re.search(rf"[ ]{re.escape(name)}[; ]", text) for name in before)
    check_flags(text)


def check_flags(text):
    lines = re.findall(r"vtc ([a-z-]+ .*)", text)
    assert lines
    for line in lines:
        name, words = line.split(" ", 1)
        assert flags_in(words) <= flags_of(main.commands[name]), line
