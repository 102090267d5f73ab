"""Whatever is written is what is read: every format, every type of column."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vtc.tables import read, write
from vtc.tables.spec import Column, Table
from vtc.tables.specs import TABLES

INTS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
# "\0" is in no text file; it is refused on reading, below.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
CELLS = {
    "string": TEXTS,
    "int": INTS,
    "float": FLOATS,
    "bool": st.booleans(),
    "list<string>": st.lists(TEXTS, max_size=3),
    "list<float>": st.lists(FLOATS, max_size=3),
    "list<turn>": st.lists(st.fixed_dictionaries({"role": TEXTS, "text": TEXTS}), max_size=2),
    "list<region>": st.lists(
        st.fixed_dictionaries({"text": TEXTS, "x": FLOATS, "y": FLOATS}), max_size=2
    ),
}
EVERY_TYPE = Table(
    "every_type",
    3,
    "a column of each type, empty or not",
    tuple(Column(f"c_{n}", kind, "cell") for n, kind in enumerate(CELLS))
    + tuple(Column(f"n_{n}", kind, "cell", nullable=True) for n, kind in enumerate(CELLS)),
)
# CSV cannot tell an empty text from no text where both may be.
FILLED = {**CELLS, "string": TEXTS.filter(bool)}
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            **{f"c_{n}": cells for n, cells in enumerate(CELLS.values())},
            **{f"n_{n}": st.none() | cells for n, cells in enumerate(FILLED.values())},
        }
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json", "jsonl"])
@given(rows=ROWS)
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_round_trip(tmp_path, suffix, rows):
    path = tmp_path / f"table.{suffix}"
    write.write_rows(rows, EVERY_TYPE, path, force=True, footer={"seed": 3})
    found = read.read_rows(path, EVERY_TYPE)
    assert found.rows == rows
    assert (found.footer.get("seed") == 3) == (suffix == "parquet")


def test_every_kind_of_line_end_stays_inside_its_csv_cell(tmp_path):
    spec = Table("t", 1, "t", (Column("x", "string", "x"), Column("y", "string", "y")))
    rows = [{"x": "a\rb", "y": "c\r\nd"}, {"x": "e\nf\r", "y": "\r\n"}]
    write.write_rows(rows, spec, tmp_path / "t.csv")
    assert read.read_rows(tmp_path / "t.csv", spec).rows == rows


def test_nan_is_null_in_json_and_refused_in_a_number_column(tmp_path):
    spec = Table("t", 1, "t", (Column("x", "float", "x"),))
    path = tmp_path / "t.json"
    write.write_rows([{"x": math.nan}], spec, path)
    assert path.read_text() == '{"x": null}\n'


def test_names_of_tables_and_columns_are_unique_and_each_says_what_it_is():
    assert len({table.name for table in TABLES}) == len(TABLES)
    for table in TABLES:
        assert len(set(table.column_names)) == len(table.columns)
        assert table.meaning
        assert all(column.meaning for column in table.columns)


def test_a_program_that_writes_a_wrong_row_is_told():
    spec = Table("t", 1, "t", (Column("x", "float", "x"),))
    with pytest.raises(ValueError, match="has no column"):
        write.encode([{"x": 1.0, "y": 2.0}], spec, "csv")
    with pytest.raises(ValueError, match="column x is empty"):
        write.encode([{"x": None}], spec, "csv")
