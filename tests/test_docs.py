"""The documentation is what the program says; README's file tree is what is there."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from vtc.cli import main
from vtc.commands import COMMANDS

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
assert spec is not None
assert spec.loader is not None
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


def leaves(command: click.Command) -> list[click.Command]:
    if isinstance(command, click.Group):
        return [leaf for sub in command.commands.values() for leaf in leaves(sub)]
    return [command]


EVERY = [leaf for command in COMMANDS for leaf in leaves(command)]


def test_generated_pages_are_up_to_date():
    # In a process of its own: click keeps the help option of a command's first call, and other
    # tests call commands without the program around them.
    command = [sys.executable, ROOT / "docs" / "build.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", [main, *EVERY], ids=lambda command: command.name)
def test_every_command_explains_itself(command):
    text = f"{command.help} {command.epilog}"
    assert re.search(r"Example:\n +vtc ", text), "give the docstring an Example"
    options = [p for p in command.params if isinstance(p, click.Option)]
    for option in options:
        assert option.help, f"{option.opts[0]} has no help text"
        assert option.help.strip()[-1] in ".])", f"{option.opts[0]}: end its help with a full stop"


def test_commands_stand_in_the_order_of_the_data():
    flow = (
        "lab check-data encode catalog compressors estimate train-projector finetune import export "
    )
    flow += "benchmarks eval ask score show fit compare plan plot profile recommend"
    names = [command.name for command in COMMANDS]
    assert names == [name for name in flow.split() if name in names]
    assert len(names) == len(set(names)) >= 11


def test_readme_names_every_folder():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = [path.parent.name for path in sorted((ROOT / "vtc").glob("*/__init__.py"))]
    folders += ["docs", "recipes", "tests", "benchmarks"]
    missing = [name for name in folders if not re.search(rf"(?:^|\s|─){name}/\s+\S", text)]
    assert not missing, f"README's file tree lacks {missing}"


def test_links_between_pages_lead_somewhere():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not link.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / link).exists(), f"{page.name} links to {link}"
