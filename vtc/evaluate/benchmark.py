"""A benchmark is a TOML file: where its rows are, what to ask, and how answers are scored."""

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.evaluate import metrics
from vtc.tables.read import read_text

TASKS = ("reasoning", "ocr", "general")
"""Task families: the paper's two, and what is in neither of its averages."""
_PLACE = re.compile(r"\{(\w+)\}")
_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "task": (str,),
    "rows": (str,),
    "images": (str,),
    "image_suffix": (str,),
    "facts": (list,),
    "metric": (str,),
    "prompt": (str,),
    "max_new_tokens": (int,),
    "chance": (float, int),
    "fields": (list,),
    "filter": (dict,),
    "columns": (dict,),
}
_REQUIRED = ("name", "task", "rows", "metric")


@dataclass(frozen=True)
class Columns:
    """Which column of the rows is what; `image` may be a template such as "{image_id}.png".

    `choices` holds the options of a multiple choice, `category` and `group` what MME, POPE and
    MMBench are scored by.
    """

    question: str = "question"
    answers: str = "answers"
    id: str | None = None
    image: str | None = None
    choices: str | None = None
    category: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """The settings of a benchmark, its paths resolved; `inputs` are the files it was read from.

    `image_suffix` replaces that of the images' names; `facts` are columns that the metric reads
    besides the answers (MathVista's answer_type).
    """

    source: Path | str
    name: str
    task: str
    metric: str
    images: Path
    columns: Columns = Columns()
    prompt: str = "{question}"
    max_new_tokens: int = 16
    chance: float | None = None
    fields: tuple[str, ...] = ()
    filter: dict[str, Any] = field(default_factory=dict)
    image_suffix: str | None = None
    facts: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()

    @property
    def tables(self) -> tuple[Path, ...]:
        """The tables of rows that a TOML file names."""
        return self.inputs[1:]

    @property
    def prompt_sha(self) -> str:
        """The first 16 hex digits of the prompt template's SHA-256."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()[:16]


def read_benchmark(
    path: str | Path,
    images: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> Benchmark:
    """Read a benchmark's TOML file; `images` overrides its image root.

    Relative paths in the file are relative to `data_dir` (or its folder of the benchmark's name),
    if the rows are there, else to the file's own folder. `rows` may be a pattern such as "*.json".
    Raises InputError naming the file and the key for anything missing, unknown or mistyped.
    """
    path = Path(path)
    try:
        settings = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None
    _check_keys(settings, path)
    folder, tables = _tables(path, settings.pop("rows"), settings["name"], data_dir)
    root = Path(images).resolve() if images else folder / settings.pop("images", ".")
    settings.pop("images", None)
    try:
        columns = Columns(**settings.pop("columns", {}))
    except TypeError:
        raise InputError(
            f"{path}: [columns] may name {', '.join(Columns.__dataclass_fields__)} only"
        ) from None
    return Benchmark(
        source=path,
        images=root,
        inputs=(path, *tables),
        columns=columns,
        fields=tuple(settings.pop("fields", ())),
        facts=tuple(settings.pop("facts", ())),
        **settings,
    )


def _tables(
    path: Path, rows: str, name: str, data_dir: str | Path | None
) -> tuple[Path, list[Path]]:
    """The folder that relative paths are relative to, and the tables of rows in it."""
    folders = [path.resolve().parent]
    if data_dir is not None:
        folders = [Path(data_dir).resolve() / name, Path(data_dir).resolve(), *folders]
    for folder in folders:
        found = sorted(folder.glob(rows)) if "*" in rows else [folder / rows]
        if found and found[0].exists():
            return folder, found
    if "*" in rows:
        raise InputError(f"{path}: no file is like {folders[0] / rows}; name --data-dir")
    return folders[-1], [folders[-1] / rows]


def fill(template: str, row: dict[str, Any], where: str) -> str:
    """A template with each {column} replaced by the row's cell; other braces stay.

    Raises InputError naming `where` and the column that the row lacks.
    """

    def cell(match: re.Match[str]) -> str:
        if row.get(match[1]) is None:
            raise InputError(f"{where}: column '{match[1]}' of the template is missing or empty")
        return str(row[match[1]])

    return _PLACE.sub(cell, template)


def is_template(text: str) -> bool:
    """Whether a text names columns in braces."""
    return _PLACE.search(text) is not None


def distinct(benchmarks: Sequence[Benchmark]) -> None:
    """Raise InputError if two benchmarks share a name: their scores could not be told apart."""
    seen: dict[str, Benchmark] = {}
    for benchmark in benchmarks:
        other = seen.setdefault(benchmark.name, benchmark)
        if other is not benchmark:
            raise InputError(f"{benchmark.source} and {other.source} are both '{benchmark.name}'")


def _check_keys(settings: dict[str, Any], path: Path) -> None:
    for key in _REQUIRED:
        if key not in settings:
            raise InputError(f"{path}: '{key}' is missing")
    for key, value in settings.items():
        if key not in _KINDS:
            raise InputError(f"{path}: unknown key '{key}'; known are {', '.join(_KINDS)}")
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            raise InputError(f"{path}: '{key}' must be {_KINDS[key][0].__name__}, not {value!r}")
    if settings["task"] not in TASKS:
        raise InputError(f"{path}: task '{settings['task']}' is none of {', '.join(TASKS)}")
    metrics.get(settings["metric"], str(path))
    if settings.get("max_new_tokens", 1) < 1:
        raise InputError(f"{path}: max_new_tokens must be at least 1")
    if not 0 <= settings.get("chance", 0) <= 1:
        raise InputError(f"{path}: chance must lie in [0, 1]")
    if not all(isinstance(cell, str) for cell in settings.get("columns", {}).values()):
        raise InputError(f"{path}: [columns] maps to names of columns, in quotes")
