"""A benchmark is a TOML file: where its rows are, what to ask, and how answers are scored."""

import difflib
import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vtc.data.hub import is_hub_id
from vtc.errors import InputError
from vtc.evaluate import metrics
from vtc.evaluate.benchmarks import local
from vtc.evaluate.benchmarks.registry import SPECS
from vtc.evaluate.benchmarks.spec import HubData
from vtc.tables.read import read_text

TASKS = ("reasoning", "ocr", "general")
"""Task families: the paper's two, and what is in neither of its averages."""
_PLACE = re.compile(r"\{(\w+)\}")
_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "task": (str,),
    "rows": (str,),
    "split": (str,),
    "subset": (str,),
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

    The cells of `image` (one column, or several in the order of the prompt) are paths, pictures
    ({bytes, path}, bytes, base64), or lists of either. `choices` holds the options of a multiple
    choice, `category` and `group` what MME, POPE and MMBench are scored by.
    """

    question: str = "question"
    answers: str = "answers"
    id: str | None = None
    image: str | tuple[str, ...] | None = None
    choices: str | None = None
    category: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """The settings of a benchmark, its paths resolved; `inputs` are the files it was read from.

    Its rows are those files behind the first, or a data set: `data` on the hub, or that part of it
    in the folder `place`. If it `holds_pictures` in its rows, `images` is where they were put.
    `image_suffix` replaces that of the images' names; `facts` are columns
    that the metric reads besides the answers (MathVista's answer_type).
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
    data: HubData | None = None
    place: Path | None = None
    holds_pictures: bool = False

    @property
    def tables(self) -> tuple[Path, ...]:
        """The tables of rows that a TOML file names."""
        return self.inputs[1:]

    @property
    def rows_name(self) -> str:
        """Where its rows are, for messages."""
        hub = self.data.ids[0] if self.data else ""
        return ", ".join(map(str, self.tables)) or str(self.place or hub)

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
    if the rows are there, else to the file's own folder. `rows` may be a pattern such as "*.json",
    the folder of a data set, or the id of one on the hub, of which `data_dir` may hold a copy.
    Raises InputError naming the file and the key for anything missing, unknown or mistyped.
    """
    path = Path(path)
    try:
        settings = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None
    _check_keys(settings, path)
    found = _find(path, settings, data_dir)
    for key in ("rows", "split", "subset"):
        settings.pop(key, None)
    root = Path(images).resolve() if images else found.folder / settings.pop("images", ".")
    settings.pop("images", None)
    named = settings.pop("columns", {})
    if isinstance(named.get("image"), list):
        named["image"] = tuple(named["image"])
    try:
        columns = Columns(**named)
    except TypeError:
        raise InputError(
            f"{path}: [columns] may name {', '.join(Columns.__dataclass_fields__)} only"
        ) from None
    return Benchmark(
        source=path,
        images=root,
        inputs=(path, *found.tables),
        data=found.data,
        place=found.place,
        columns=columns,
        fields=tuple(settings.pop("fields", ())),
        facts=tuple(settings.pop("facts", ())),
        **settings,
    )


class _Found(NamedTuple):
    """The folder that image paths are relative to, and the rows: tables, or a data set."""

    folder: Path
    tables: tuple[Path, ...] = ()
    data: HubData | None = None
    place: Path | None = None


def _find(path: Path, settings: dict[str, Any], data_dir: str | Path | None) -> _Found:
    rows, name = settings["rows"], settings["name"]
    folders = [path.resolve().parent]
    if data_dir is not None:
        folders = [Path(data_dir).resolve() / name, Path(data_dir).resolve(), *folders]
    for folder in folders:
        found = _like(folder, rows) if "*" in rows else [folder / rows]
        if found and found[0].exists():
            break
    else:
        if is_hub_id(rows):
            return _on_hub(path, settings, data_dir)
        if "*" in rows:
            raise InputError(f"{path}: no file is like {folders[0] / rows}; name --data-dir")
    if found[0].is_dir() and "*" not in rows:
        place = found[0]
        return _Found(place, data=_part(rows, settings), place=place)
    for key in ("split", "subset"):
        if key in settings:
            raise InputError(f"{path}: '{key}' is of data sets, but {found[0]} is a file of rows")
    return _Found(folder, tuple(found))


def _like(folder: Path, pattern: str) -> list[Path]:
    """The files like a pattern, below a folder or, of an absolute one, wherever it says."""
    root = Path(pattern).anchor
    return sorted(Path(root).glob(pattern[len(root) :]) if root else folder.glob(pattern))


def _on_hub(path: Path, settings: dict[str, Any], data_dir: str | Path | None) -> _Found:
    """A data set of the hub, or the copy of it in `data_dir`."""
    rows, _, named = settings["rows"].partition(":")
    data = _part(rows, {"split": named, **settings} if named else settings)
    if data_dir is None:
        if not data.split:
            raise InputError(
                f"{path}: no file or folder {rows} is here; of a data set on the hub name the "
                'part too, such as split = "test"'
            )
        return _Found(path.resolve().parent, data=data)
    names = [settings["name"], rows.split("/")[1]]
    place = local.place_of(names, Path(data_dir).resolve(), list(SPECS))
    return _Found(place if place.is_dir() else place.parent, data=data, place=place)


def _part(rows: str, settings: dict[str, Any]) -> HubData:
    return HubData((rows,), settings.get("split", ""), settings.get("subset"))


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
    for key in settings:
        if key not in _KINDS:
            near = difflib.get_close_matches(key, _KINDS, n=1)
            meant = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(_KINDS)}"
            raise InputError(f"{path}: unknown key '{key}'; {meant}")
    for key in _REQUIRED:
        if key not in settings:
            raise InputError(f"{path}: '{key}' is missing")
    for key, value in settings.items():
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            raise InputError(f"{path}: '{key}' must be {_KINDS[key][0].__name__}, not {value!r}")
    if settings["task"] not in TASKS:
        raise InputError(f"{path}: task '{settings['task']}' is none of {', '.join(TASKS)}")
    metrics.get(settings["metric"], str(path))
    if settings.get("max_new_tokens", 1) < 1:
        raise InputError(f"{path}: max_new_tokens must be at least 1")
    if not 0 <= settings.get("chance", 0) <= 1:
        raise InputError(f"{path}: chance must lie in [0, 1]")
    for key, cell in settings.get("columns", {}).items():
        listed = cell if key == "image" and isinstance(cell, list) and cell else [cell]
        if not all(isinstance(name, str) for name in listed):
            raise InputError(f"{path}: [columns] maps to names of columns, in quotes")
