"""Any artifact as rows of a table: our tables, anybody's, and the folders that commands write."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vtc.errors import InputError
from vtc.tables import specs
from vtc.tables.read import read_rows, read_text, title
from vtc.tables.spec import Column, ColumnType, Table

_MANIFESTS = ("manifest.json", "world.json")
_KEYS = Table(
    "manifest",
    1,
    "what a folder says of itself",
    (
        Column("key", "string", "what is said"),
        Column("value", "string", "the value", nullable=True),
    ),
)
_DESCRIPTION = Table(
    "columns",
    1,
    "the columns of a table",
    (
        Column("column", "string", "name"),
        Column("type", "string", "type"),
        Column("unit", "string", "unit", nullable=True),
        Column("meaning", "string", "meaning", nullable=True),
    ),
)


class Artifact(NamedTuple):
    """Rows, the table they are of, what made them, and a sentence on what they are."""

    rows: list[dict[str, Any]]
    spec: Table
    footer: dict[str, Any]
    summary: str


def open_table(path: str | Path) -> Artifact:
    """A table of ours (by its footer) or anybody's (types read off its cells).

    Raises InputError for a file that is no table, or a table of a newer version.
    """
    head = read_rows(path)
    name, footer = title(path), head.footer
    known = specs.BY_NAME.get(str(footer.get("table")))
    count = f"{len(head.rows)} row{'s' * (len(head.rows) != 1)}"
    if known is None:
        rows, spec = guess(head.rows)
        return Artifact(rows, spec, footer, f"{name}: {count}")
    if footer.get("version") != known.version:
        raise InputError(
            f"{name}: table {known.name} v{footer.get('version')}, but this vtc knows "
            f"v{known.version}"
        )
    summary = f"{name}: {known.name} v{known.version}, {known.meaning}; {count}"
    return Artifact(head.rows, known, footer, summary)


def open_folder(path: str | Path) -> Artifact:
    """The manifest of a run, of features or of a lab world as rows (key, value).

    Of a run also what its other files set: its compressor's settings, and how it is asked. Raises
    InputError if the folder has none: it is something else, or it was never finished.
    """
    folder = Path(path)
    file = next((folder / name for name in _MANIFESTS if (folder / name).is_file()), None)
    if file is None:
        raise InputError(
            f"{path} holds no {' or '.join(_MANIFESTS)}: no run, features or world, or unfinished"
        )
    try:
        manifest = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: broken JSON ({error.msg}, line {error.lineno})") from None
    if not isinstance(manifest, dict):
        raise InputError(f"{file}: expected a JSON object")
    footer = manifest.get("footer", {})
    said: dict[str, Any] = {}
    for key, value in manifest.items():
        said |= {} if key == "footer" else {key: value}
        said |= _set_beside(folder) if key == "compressor" else {}
    rows = _flat(said)
    return Artifact(rows, _KEYS, footer, f"{path}: {_kind(manifest, file)}")


def _set_beside(folder: Path) -> dict[str, Any]:
    """What a run's config and processor set: its compressor's settings, and the question's place.

    Settings that were never given are left out, so is a place that is the usual one.
    """
    config, processor = (
        _object(folder / name) for name in ("config.json", "processor_config.json")
    )
    said = {"compressor_settings": config.get("compressor_settings") or None}
    said["query_scope"] = processor.get("query_scope")
    position = processor.get("query_position")
    said["query_position"] = None if position == "after" else position
    return {key: value for key, value in said.items() if value is not None}


def _object(file: Path) -> dict[str, Any]:
    """A JSON file's object; an empty one where the file is missing or no such."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_description(found: Artifact) -> bool:
    """Whether the rows say what a folder or a table is: then all of them matter."""
    return found.spec in (_KEYS, _DESCRIPTION)


def description(found: Artifact) -> Artifact:
    """The columns of an artifact, a row each."""
    rows = [
        {"column": c.name, "type": c.type, "unit": c.unit or None, "meaning": c.meaning or None}
        for c in found.spec.columns
    ]
    return Artifact(rows, _DESCRIPTION, found.footer, found.summary)


def footer_json(found: Artifact) -> str:
    """What made an artifact, as indented JSON; raises InputError if it does not say."""
    if not found.footer:
        raise InputError(f"{found.summary.split(':')[0]} has no footer: vtc did not write it")
    return json.dumps(found.footer, indent=2, ensure_ascii=False)


def choose_columns(found: Artifact, wanted: str | None) -> list[str]:
    """The columns named in `wanted`, separated by commas; all of them if it is None.

    Raises InputError naming a column that is not there, and those that are.
    """
    if wanted is None:
        return found.spec.column_names
    names = [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in found.spec.column_names:
            known = ", ".join(found.spec.column_names)
            raise InputError(f"no column '{name}'; there are {known}")
    return names


def split_constant(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    """The columns that differ between rows, and the cells of those that do not.

    With one row, or where nothing differs, all columns are taken to differ.
    """
    if len(rows) < 2:
        return list(names), {}
    same = {n: rows[0].get(n) for n in names if all(r.get(n) == rows[0].get(n) for r in rows)}
    differ = [name for name in names if name not in same]
    return (differ, same) if differ else (list(names), {})


def part_of(spec: Table, names: Sequence[str]) -> Table:
    """The table with the columns `names` alone, in that order; itself if those are all."""
    if list(names) == spec.column_names:
        return spec
    by_name = {column.name: column for column in spec.columns}
    return Table(spec.name, spec.version, spec.meaning, tuple(by_name[name] for name in names))


def guess(rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], Table]:
    """Bare rows, and a table for them: every column seen, its type read off its cells.

    Cells of a column of no one type (and objects) become text, so that any format can hold them.
    """
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    types: dict[str, ColumnType] = {
        name: _type([r[name] for r in rows if r.get(name) is not None]) for name in names
    }
    columns = tuple(Column(name, kind, "", nullable=True) for name, kind in types.items())
    typed = [{name: _as(row.get(name), kind) for name, kind in types.items()} for row in rows]
    return typed, Table("rows", 1, "bare rows", columns)


def _type(cells: Sequence[Any]) -> ColumnType:
    kinds = {type(cell) for cell in cells}
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "int"
    if kinds and kinds <= {int, float}:
        return "float"
    items = {type(item) for cell in cells if isinstance(cell, list) for item in cell}
    if kinds == {list} and items <= {str}:
        return "list<string>"
    return "list<float>" if kinds == {list} and items <= {int, float} else "string"


def _as(cell: Any, kind: ColumnType) -> Any:
    if kind != "string" or cell is None or isinstance(cell, str):
        return cell
    return json.dumps(cell, ensure_ascii=False, default=str)


def _kind(manifest: Mapping[str, Any], file: Path) -> str:
    if file.name == "world.json":
        return "a lab world"
    if "stage" in manifest:
        return f"a run, stage {manifest['stage']}"
    if "features_version" in manifest:
        return "encoder features"
    raise InputError(f"{file} is no manifest of a run, of features or of a world")


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[dict[str, Any]]:
    """Nested objects as rows with dotted keys."""
    rows: list[dict[str, Any]] = []
    for key, cell in value.items():
        if isinstance(cell, dict):
            rows.extend(_flat(cell, f"{prefix}{key}."))
        else:
            text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
            rows.append({"key": f"{prefix}{key}", "value": None if cell is None else text})
    return rows
