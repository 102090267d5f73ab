"""Who may import whom, what must stay light, and what no file may hold."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vtc"
FILES = sorted(PACKAGE.rglob("*.py"))

# What each room may import of vtc, besides itself, `errors` and the version (docs/design.md, 3).
TABLES = {"tables", "catalog"}
DATA = TABLES | {"data"}
MODEL = DATA | {"compress", "model"}
MAY = {
    "errors": set(),
    "tables": set(),
    "catalog": {"tables"},
    "data": TABLES,
    "compress": DATA,
    "model": DATA | {"compress"},
    "train": MODEL,
    "evaluate": MODEL | {"train"},
    "cost": TABLES,
    "law": TABLES | {"cost"},
    "compare": TABLES | {"cost", "law"},
    "recommend": TABLES | {"cost", "law"},
    "lab": MODEL,
    "figures": TABLES | {"cost", "law", "recommend"},
    "adapters": MODEL | {"evaluate"},
    "console": set(),
    "commands": None,
    "cli": {"commands", "console"},
    "__main__": {"cli"},
    "__init__": set(),
}
# The only places that may know the terminal.
TERMINAL = {"commands", "cli", "console"}
LIGHT = {"errors", "tables", "catalog", "law", "cost", "compare", "recommend", "figures"}
LIGHT |= {"cli", "console"}
HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "scipy", "pandas")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, top_only: bool = False) -> set[str]:
    """Full names of the modules a file imports; names imported from a package count as modules."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_of(names: set[str]) -> set[str]:
    inside = [name.split(".") for name in names]
    return {parts[1] for parts in inside if parts[0] == "vtc" and len(parts) > 1}


def offenders(wrong) -> dict[str, object]:
    """What `wrong` finds in each file of the package, where it finds anything."""
    found = {str(path.relative_to(ROOT)): wrong(path) for path in FILES}
    return {name: what for name, what in found.items() if what}


def test_imports_go_one_way():
    def wrong(path: Path) -> set[str]:
        allowed = MAY[room(path)]
        free = {room(path), "errors", "__version__"}
        return set() if allowed is None else rooms_of(imports(path)) - allowed - free

    assert not {room(path) for path in FILES} - set(MAY), "give the new room a place in the order"
    assert len(FILES) > 50
    assert not offenders(wrong)


def test_only_the_command_line_knows_the_terminal():
    def wrong(path: Path) -> set[str]:
        names = {name.split(".")[0] for name in imports(path)}
        return set() if room(path) in TERMINAL else names & {"click", "rich"}

    assert not offenders(wrong)


def test_light_rooms_never_load_torch():
    def wrong(path: Path) -> set[str]:
        names = {name.split(".")[0] for name in imports(path)}
        # cost/measure.py times real models.
        light = room(path) in LIGHT and path.name != "measure.py"
        return names & {"torch", "transformers", "peft"} if light else set()

    assert not offenders(wrong)


def test_commands_import_nothing_heavy_at_the_top():
    own = ("vtc.commands", "vtc.errors", "vtc.tables.spec.")

    def wrong(path: Path) -> set[str]:
        if room(path) != "commands":
            return set()
        names = {name for name in imports(path, top_only=True) if not name.startswith(own)}
        return {n for n in names if n.split(".")[0] not in {*sys.stdlib_module_names, "click"}}

    assert not offenders(wrong)


def test_files_are_small_and_finished():
    def wrong(path: Path) -> list[str]:
        text = path.read_text(encoding="utf-8")
        marks = re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b|NotImplementedError", text)
        vague = [path.stem] if path.stem in ("utils", "helpers", "common", "misc") else []
        long = ["more than 400 lines"] if len(text.splitlines()) > 400 else []
        return marks + vague + long

    assert not offenders(wrong)


def loaded_by(*arguments: str) -> set[str]:
    """Top-level modules that a run of vtc has loaded when it ends."""
    code = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        "from vtc.cli import run\nrun(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


@pytest.mark.parametrize(
    ("arguments", "banned"),
    [
        (("--help",), (*HEAVY, "pyarrow", "numpy", "rich")),
        (("eval", "--help"), (*HEAVY, "pyarrow", "numpy", "rich")),
        (("recommend", "--flops", "3e12", "--q", "50"), (*HEAVY, "pyarrow")),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, tuple) else "",
)
def test_light_commands_load_nothing_heavy(arguments, banned):
    assert not loaded_by(*arguments) & set(banned)


def test_score_loads_no_model(tmp_path):
    table = tmp_path / "p.csv"
    table.write_text("prediction,references\nyes,yes\nno,yes\n")
    about = "--metric exact_match --benchmark b --task ocr --n-params 7b --visual-tokens 4"
    assert not loaded_by("score", str(table), *about.split()) & set(HEAVY)


def test_importing_vtc_imports_nothing():
    code = "import sys; before = set(sys.modules); import vtc; print(set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'vtc'}"
