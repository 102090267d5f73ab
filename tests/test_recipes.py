"""Recipes stay true to the program: their settings are flags, their steps are there."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from vtc.cli import main

RECIPES = Path(__file__).parent.parent / "recipes"
STUDIES = sorted(path.parent for path in RECIPES.rglob("study.toml"))
STEPS = sorted(set(RECIPES.rglob("*.toml")) - {study / "study.toml" for study in STUDIES})
STUDY_KEYS = {"sizes", "visual_tokens", "seeds", "holdout", "text_tokens", "flops", "finetune_lr"}


def test_there_are_studies_and_steps():
    assert {study.name for study in STUDIES} >= {"tiny", "quick", "full"}
    assert len(STEPS) >= 3 * len(STUDIES)


@pytest.mark.parametrize("path", STEPS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_settings_of_a_step_are_flags_of_its_command(path):
    command = main.commands[path.stem]
    flags = {option for param in command.params for option in param.opts}
    settings = tomllib.loads(path.read_text(encoding="utf-8"))
    assert settings
    assert {f"--{key}" for key in settings} <= flags
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
    assert steps == set(main.commands) - {"show"}
