"""One's own benchmarks: rows that hold the pictures, and data sets saved or on the hub."""

import base64
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_rows import IMAGE, picture
from PIL import Image

from vtc.data.images import open_image
from vtc.errors import InputError
from vtc.evaluate.benchmark import read_benchmark
from vtc.evaluate.benchmarks.loading import Where
from vtc.evaluate.choosing import choose
from vtc.evaluate.items import read_items

RECIPES = Path(__file__).parents[1] / "recipes" / "benchmarks"
TOML = """
name = "mine"
task = "general"
rows = "{rows}"
metric = "exact_match"
{more}
[columns]
id = "id"
answers = "answer"
image = {image}
"""


def write(folder: Path, rows: str, image: str = '"image"', more: str = "") -> str:
    path = folder / "mine.toml"
    path.write_text(TOML.format(rows=rows, image=image, more=more))
    return str(path)


def text(number: int) -> str:
    return base64.b64encode(picture(number)["bytes"]).decode()


def rows_with(*pictures) -> list[dict]:
    return [
        {"id": n, "question": "What?", "answer": "cat", "image": image}
        for n, image in enumerate(pictures)
    ]


def table(rows: list[dict], kind: pa.DataType) -> pa.Table:
    names = [("id", pa.int64()), ("question", pa.string()), ("answer", pa.string())]
    return pa.Table.from_pylist(rows, schema=pa.schema([*names, ("image", kind)]))


def write_rows(folder: Path, name: str, rows: list[dict], kind: pa.DataType | None) -> None:
    if kind is None:
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(table(rows, kind), folder / name)


@pytest.mark.parametrize(
    ("name", "kind", "made"),
    [
        ("r.parquet", IMAGE, picture),
        ("r.parquet", pa.binary(), lambda n: picture(n)["bytes"]),
        ("r.parquet", pa.list_(IMAGE), lambda n: [picture(n)]),
        ("r.parquet", pa.list_(pa.binary()), lambda n: [picture(n)["bytes"]]),
        ("r.parquet", pa.string(), text),
        ("r.jsonl", None, text),
        ("r.jsonl", None, lambda n: "data:image/png;base64," + text(n)),
        ("r.jsonl", None, lambda n: {"bytes": text(n), "path": "x.png"}),
        ("r.jsonl", None, lambda n: "\n".join([text(n)[:76], text(n)[76:]])),
    ],
)
def test_pictures_in_rows_become_files(tmp_path, name, kind, made):
    write_rows(tmp_path, name, rows_with(made(0), made(1), made(0)), kind)
    pictures = tmp_path / "pictures"
    [(benchmark, items)] = choose([write(tmp_path, name)], Where(pictures))
    assert benchmark.images == pictures
    assert [item.images == items[0].images for item in items] == [True, False, True]
    for number, item in enumerate(items[:2]):
        [image] = item.images
        expected = Image.open(io.BytesIO(picture(number)["bytes"]))
        assert open_image(pictures, image).tobytes() == expected.tobytes()
    assert sum(path.is_file() for path in pictures.rglob("*")) == 2


def test_several_pictures_a_row_and_none(tmp_path):
    rows = [
        {"id": 0, "question": "Equal?", "answer": "no", "image": [picture(0), picture(1)]},
        {"id": 1, "question": "Equal?", "answer": "no", "image": [], "second": picture(0)},
        {"id": 2, "question": "Text?", "answer": "no", "image": None, "second": None},
    ]
    names = [("id", pa.int64()), ("question", pa.string()), ("answer", pa.string())]
    schema = pa.schema([*names, ("image", pa.list_(IMAGE)), ("second", IMAGE)])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "r.parquet")
    toml = write(tmp_path, "r.parquet", '["image", "second"]', 'image_suffix = ".jpg"')
    [(_, items)] = choose([toml], Where(tmp_path / "pictures"))
    assert [len(item.images) for item in items] == [2, 1, 0]
    # The suffix is that of paths: a picture's file has the one of its bytes.
    assert items[1].images == items[0].images[:1]
    assert items[0].images[0].endswith(".png")


def test_paths_stay_paths_whatever_their_list(tmp_path):
    (tmp_path / "r.csv").write_text('id,question,answer,image\n1,q?,a,"[""a.png"", ""b.png""]"\n')
    [(benchmark, [item])] = choose([write(tmp_path, "r.csv")], Where(tmp_path / "pictures"))
    assert item.images == ("a.png", "b.png")
    assert benchmark.images == tmp_path


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (("a.png", text(0)), r"row 1 holds its picture itself, but .*row 0 names a file"),
        (("https://x.org/a.png",), "row 0, column 'image': image is a web address; download it"),
        ((text(0)[:-5] + "!",), "row 0, column 'image': the base64 of its image is damaged or cut"),
        (({"a": 1},), "row 0, column 'image': image is neither a path"),
    ],
)
def test_faults_of_pictures(tmp_path, images, message):
    write_rows(tmp_path, "r.jsonl", rows_with(*images), None)
    with pytest.raises(InputError, match=message):
        choose([write(tmp_path, "r.jsonl")], Where(tmp_path / "pictures"))


def test_those_who_read_paths_alone_refuse_pictures(tmp_path):
    write_rows(tmp_path, "r.jsonl", rows_with(text(0)), None)
    with pytest.raises(InputError, match="it holds its picture itself; vtc eval alone"):
        read_items(read_benchmark(write(tmp_path, "r.jsonl")))


def test_a_data_set_that_was_saved(tmp_path):
    from datasets import Dataset, DatasetDict, Features, Value
    from datasets import Image as Picture

    features = Features(
        {"id": Value("int64"), "question": Value("string"), "answer": Value("string"),
         "image": Picture()}
    )  # fmt: skip
    whole = Dataset.from_list(rows_with(picture(0), picture(1), picture(2)), features=features)
    whole.save_to_disk(tmp_path / "one")
    DatasetDict({"train": whole.select([0]), "test": whole}).save_to_disk(tmp_path / "both")
    expected = [f"{n}" for n in range(3)]
    where = Where(tmp_path / "pictures")
    for rows, more in (("one", ""), ("both", 'split = "test"')):
        [(benchmark, items)] = choose([write(tmp_path, rows, more=more)], where)
        assert [item.item_id for item in items] == expected
        assert open_image(benchmark.images, items[2].images[0]).size == (24, 24)
    [(_, items)] = choose([write(tmp_path, "one")], where, limit=2)
    assert len(items) == 2
    for more, message in (
        ("", r"both has several splits \(train, test\); name one with 'split'"),
        ('split = "dev"', "both has no split 'dev'; it has train, test"),
    ):
        with pytest.raises(InputError, match=message):
            choose([write(tmp_path, "both", more=more)], where)


def test_a_folder_of_data_files_and_its_parts(tmp_path):
    data = tmp_path / "set" / "easy"
    data.mkdir(parents=True)
    for split, numbers in (("train", [0]), ("test", [1, 2])):
        rows = rows_with(*map(picture, numbers))
        pq.write_table(table(rows, IMAGE), data / f"{split}-00000-of-00001.parquet")
    more = 'split = "test"\nsubset = "easy"'
    [(_, items)] = choose([write(tmp_path, "set", more=more)], Where(tmp_path / "pictures"))
    assert len(items) == 2
    with pytest.raises(InputError, match=r"several splits \(test, train\)"):
        choose([write(tmp_path, "set")], Where(tmp_path / "pictures"))
    with pytest.raises(InputError, match=r"'split' is of data sets, but .*train.* is a file of"):
        choose(
            [write(tmp_path, f"set/easy/{'train-00000-of-00001.parquet'}", more=more)],
            Where(tmp_path / "pictures"),
        )


def test_a_data_set_of_the_hub_or_a_copy_of_it(tmp_path):
    where = Where(tmp_path / "pictures", tmp_path / "data")
    copy = tmp_path / "data" / "mmstar"
    copy.mkdir(parents=True)
    rows = [
        {"index": n, "question": "Which?\nOptions: A: cat, B: dog", "image": picture(n)["bytes"],
         "answer": "AB"[n % 2], "category": "math", "l2_category": "geometry"}
        for n in range(3)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), copy / "val-00000-of-00001.parquet")
    [(benchmark, items)] = choose([str(RECIPES / "mmstar.toml")], where)
    assert [item.references for item in items] == [["A"], ["B"], ["A"]]
    assert items[0].category == "math"
    assert open_image(benchmark.images, items[1].images[0]).size == (24, 24)
    with pytest.raises(InputError, match=r"mmstar is not to be had from the hub \(Lin-Chen/MMSt"):
        choose([str(RECIPES / "mmstar.toml")], Where(tmp_path / "pictures"))
    with pytest.raises(InputError, match=r'no file or folder org/set is here; .* split = "test"'):
        choose([write(tmp_path, "org/set")], Where(tmp_path / "pictures"))
