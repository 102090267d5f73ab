"""Bad tables: each fault is named by file, row and column."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vtc.errors import InputError
from vtc.tables.read import read_rows
from vtc.tables.spec import Column, Table
from vtc.tables.write import encode, write_rows

SPEC = Table(
    "points",
    1,
    "points",
    (
        Column("n", "int", "count"),
        Column("y", "float", "value"),
        Column("name", "string", "name"),
        Column("flag", "bool", "flag", nullable=True),
        Column("tags", "list<string>", "tags", nullable=True),
        Column("turns", "list<turn>", "turns", nullable=True),
        Column("regions", "list<region>", "regions", nullable=True),
    ),
)
ROW = {"n": 1, "y": 0.5, "name": "a"}


def refuse(path, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_rows(path, SPEC)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("n,y,name\n", "has no rows"),
        ("n,y\n1,2\n", "column 'name' of table points is missing; it has n, y"),
        ("n,y,name\n1,2\n", "line 2: 2 cells, but the header has 3"),
        ("n,y,name\n1,2,a,b\n", "line 2: 4 cells, but the header has 3"),
        ("n,y,n\n1,2,3\n", "names column 'n' twice"),
        ("n,y,\n1,2,3\n", "has no name"),
        ("n,y,name\n1,,a\n", "row 0, column 'y': empty"),
        ("n,y,name\n1,2,a\n1,x,a\n", "row 1, column 'y': 'x' is not a number"),
        ("n,y,name\n1,nan,a\n", "column 'y': nan is not a finite number"),
        ("n,y,name\n1,-inf,a\n", "column 'y': -inf is not a finite number"),
        ("n,y,name\n1.5,2,a\n", "column 'n': 1.5 is not a whole number"),
        ("n,y,name\n9223372036854775808,2,a\n", "is beyond 64 bits"),
        ("n,y,name,flag\n1,2,a,maybe\n", "'maybe' is neither true nor false"),
        ("n,y,name,tags\n1,2,a,red\n", "'red' is not a JSON list"),
        ('n,y,name,tags\n1,2,a,"[1]"\n', "column 'tags', item 0: expected text"),
        ('n,y,name\n1,2,"open\n', "broken CSV"),
        ("n\0,y,name\n", "holds a zero byte"),
        ('[{"n": 1, "y": 2, "name": "a"}, {"n": 1,, }]', "row 1: broken JSON"),
        ('[{"n": 1, "y": 2, "name": "a"}', "row 0: broken JSON"),
        ('[{"n": 1, "y": 2, "name": "a"}] tail', "more text after the closing"),
        ('{"n": 1, "y": 2, "name": "a"} {}', "line 1: broken JSON"),
        ('{"n": 1, "y": 2, "name": "a"}\n{"n": \n', "line 2: broken JSON"),
        ("[1, 2]", "row 0: expected a JSON object, found 1"),
        ('[{"n": 1, "y": NaN, "name": "a"}]', "nan is not a finite number"),
        ('[{"n": true, "y": 1, "name": "a"}]', "column 'n': 'True' is not a number"),
        ('[{"n": 1, "y": 1, "name": ["a"]}]', "column 'name': expected text"),
        ('[{"n": 1, "y": 1, "name": "a"}, {"n": 1, "y": 1}]', "row 1: column 'name'"),
        ('[{"n": 1, "y": 1, "name": null}]', "row 0, column 'name': empty"),
        ('[{"n": 1, "y": 1, "name": "\\ud800"}]', "row 0: half a surrogate pair"),
        ('[{"n": 1, "y": 1, "name": "a", "tags": {"a": 1}}]', "expected a list, found"),
        ('[{"n": 1, "y": 1, "name": "a", "turns": ["hi"]}]', "item 0: expected {role, text}"),
        (
            '[{"n": 1, "y": 1, "name": "a", "regions": [{"text": "b", "x": 0}]}]',
            "item 0, y: 'None' is not a number",
        ),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_faults_of_text(tmp_path, text, message):
    path = tmp_path / "points.csv"
    path.write_text(text)
    refuse(path, message)


def test_faults_of_files(tmp_path):
    refuse(tmp_path / "none.csv", "does not exist")
    refuse(tmp_path, "is a folder")
    binary = tmp_path / "image.csv"
    binary.write_bytes(b"\x89PNG\xff\xfe")
    refuse(binary, "neither Parquet nor UTF-8 text")
    named = tmp_path / "text.parquet"
    named.write_text("n,y,name\n1,2,a\n")
    refuse(named, "is not a Parquet file")


@pytest.mark.parametrize("keep", [4, 5, 100, -1, -9])
def test_truncated_parquet(tmp_path, keep):
    path = tmp_path / "points.parquet"
    path.write_bytes(encode([ROW] * 50, SPEC, "parquet")[:keep])
    refuse(path, "damaged or truncated Parquet file")


def test_damaged_pages_of_parquet(tmp_path):
    path = tmp_path / "points.parquet"
    data = bytearray(encode([ROW] * 50, SPEC, "parquet"))
    data[4:60] = bytes(56)
    path.write_bytes(data)
    refuse(path, "damaged or truncated Parquet file")


def test_another_table_and_another_version_are_refused_by_name(tmp_path):
    other = Table("law", 1, "law", SPEC.columns)
    newer = Table("points", 2, "points", SPEC.columns)
    for spec in (other, newer):
        path = tmp_path / f"{spec.name}{spec.version}.parquet"
        write_rows([ROW], spec, path)
        refuse(path, f"need table points v1, found {spec.name} v{spec.version}")


def test_foreign_parquet_is_read_by_its_columns(tmp_path):
    path = tmp_path / "theirs.parquet"
    pq.write_table(pa.table({"y": [1.0], "n": [2.0], "name": ["a"], "more": [b"x"]}), path)
    found = read_rows(path, SPEC)
    assert found.footer == {}
    assert found.rows[0]["n"] == 2
    assert "more" not in found.rows[0]
    broken = pa.table({"n": [1]}).replace_schema_metadata({"vtc": "{"})
    pq.write_table(broken, path)
    refuse(path, "'vtc' footer is not a JSON object")


def test_json_lines_end_at_line_feeds_alone(tmp_path):
    path = tmp_path / "points.jsonl"
    rows = [{**ROW, "name": "a\u2028b\x85c"}, ROW]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\ufeff" + text, encoding="utf-8", newline="")
    assert [row["name"] for row in read_rows(path, SPEC).rows] == ["a\u2028b\x85c", "a"]
