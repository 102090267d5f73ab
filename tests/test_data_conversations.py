"""LLaVA rows become samples; broken ones name their fault."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtc.data.conversations import RowFault, parse_row
from vtc.data.samples import read_samples
from vtc.errors import InputError
from vtc.tables import specs, write


def row(**changes):
    good = {
        "id": 7,
        "image": "a.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it? "},
            {"from": "gpt", "value": " A dog."},
        ],
    }
    return {**good, **changes}


def talk(*turns):
    return [{"from": who, "value": text} for who, text in turns]


def test_llava_row_becomes_a_sample():
    sample = parse_row(row(regions=[{"text": "dog", "x": 0.5, "y": 1}]), "x-0")
    assert sample["sample_id"] == "7"
    assert sample["images"] == ["a.png"]
    assert sample["conversations"] == [
        {"role": "user", "text": "<image>\nWhat is it?"},
        {"role": "assistant", "text": "A dog."},
    ]
    assert sample["regions"] == [{"text": "dog", "x": 0.5, "y": 1.0}]


def test_row_without_id_or_image_is_fine():
    sample = parse_row({"conversations": talk(("human", "hi"), ("gpt", "ho"))}, "x-3")
    assert (sample["sample_id"], sample["images"]) == ("x-3", [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conversations": None}, "no list of conversations"),
        ({"conversations": []}, "empty conversation"),
        ({"conversations": ["hi"]}, "turn 0 is not an object"),
        ({"conversations": talk(("alien", "hi"))}, "from 'alien'"),
        ({"conversations": [{"from": "human"}]}, "turn 0 has no text"),
        ({"conversations": talk(("gpt", "hi"), ("human", "ho"))}, "roles out of order"),
        ({"conversations": talk(("human", "<image>"), ("human", "ho"))}, "roles out of order"),
        ({"conversations": talk(("human", "<image>"), ("gpt", " "))}, "empty answer in turn 1"),
        ({"conversations": talk(("human", "<image>"))}, "ends without an answer"),
        ({"conversations": talk(("human", "a"), ("gpt", "b"))}, "0 <image> marks for 1 image"),
        ({"image": None}, "1 <image> mark for 0 images"),
        ({"image": 3}, "neither a path nor a list"),
        ({"conversations": talk(("human", "a"), ("gpt", "<image>"))}, "outside the user's"),
        ({"regions": [{"text": "a", "x": 0.1, "y": 1.5}]}, "y = 1.5"),
        ({"regions": [{"text": "a", "x": float("nan"), "y": 0}]}, "x = nan"),
        ({"regions": "a"}, "regions is not a list"),
    ],
)
def test_broken_rows_are_named(change, reason):
    with pytest.raises(RowFault, match=reason):
        parse_row(row(**change), "x-0")


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
junk = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["from", "value", "role", "text", "x", "y"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["id", "image", "images", "conversations", "regions"]), junk, max_size=5
    )
)
def test_any_row_parses_or_names_its_fault(anything):
    try:
        sample = parse_row(anything, "x-0")
    except RowFault:
        return
    assert set(specs.SAMPLES.complete(sample)) == set(specs.SAMPLES.column_names)


def test_samples_table_round_trip(tmp_path):
    good = parse_row(row(), "x-0")
    about = {"settings": {"image_root": str(tmp_path)}}
    write.write_rows([good], specs.SAMPLES, tmp_path / "s.parquet", footer=about)
    samples = read_samples([tmp_path / "s.parquet"])
    assert samples.rows == [good]
    assert samples.image_root == tmp_path


def test_reading_names_the_broken_row(tmp_path):
    file = tmp_path / "s.json"
    file.write_text(json.dumps([row(), row(image=None)]))
    with pytest.raises(InputError, match=r"s\.json, row 1: 1 <image> mark .* check-data"):
        read_samples([file])
    picture = "data:image/png;base64,iVBORw0KGgo="
    file.write_text(json.dumps([row(image=picture)]))
    with pytest.raises(InputError, match=r"check-data .*s\.json -o FILE\.parquet' makes files"):
        read_samples([file])
    file.write_text(json.dumps([row()]))
    with pytest.raises(InputError, match="image root"):
        read_samples([file], tmp_path / "absent")


def test_another_table_is_refused(tmp_path):
    write.write_rows([], specs.SCORES, tmp_path / "s.parquet", footer={})
    with pytest.raises(InputError):
        read_samples([tmp_path / "s.parquet"])
