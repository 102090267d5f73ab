"""The thirteen benchmarks from data of the true types: items, prompts, layouts, and bad input."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_rows import TABLES, gqa, gqa_images, mmbench, mme, pope, textvqa, write_all

from vtc.data.images import open_image
from vtc.errors import InputError
from vtc.evaluate import metrics
from vtc.evaluate.aggregate import aggregate, score_item
from vtc.evaluate.benchmarks.loading import Where, load
from vtc.evaluate.benchmarks.registry import SPECS, find

DOCS = Path(__file__).parent.parent / "docs" / "benchmarks.md"
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_all(tmp_path_factory.mktemp("data"))


def items_of(name: str, data: Path, pictures: Path, limit=None, **more):
    return load(SPECS[name], Where(pictures, data, **more), limit)[1]


def documented_columns(name: str) -> set[str]:
    """The columns that docs/benchmarks.md says a benchmark needs."""
    line = next(
        line
        for line in DOCS.read_text().partition("### Columns")[2].splitlines()
        if line.startswith(f"| `{name}` |")
    )
    return set(re.findall(r"\w+", line.split("|")[2]))


@pytest.mark.parametrize("name", SPECS)
def test_the_documented_columns_are_enough(data, tmp_path, name):
    table = TABLES[name]()
    columns = [column for column in table.column_names if column in documented_columns(name)]
    # What these very rows have besides: more options, more pictures.
    columns += {"mmbench": ["C", "D"], "mathvista": ["choices", "precision"]}.get(name, [])
    columns += [f"image_{n}" for n in range(2, 8) if name == "mmmu"]
    folder = tmp_path / name
    folder.mkdir()
    rows = table.select(columns)
    if name == "gqa":  # Whose pictures stand in a table of their own.
        rows = rows.append_column("image", pa.array(["a.png"] * table.num_rows))
    pq.write_table(rows, folder / "rows.parquet")
    items = items_of(name, tmp_path, tmp_path / "pictures")
    assert [item.references for item in items] == [
        item.references for item in items_of(name, data, tmp_path / "others")
    ]


def row_of(item, benchmark, prediction: str) -> dict:
    about = json.dumps(item.about) if item.about else None
    return {
        "run_id": "r", "backbone": "b", "n_params": 1, "compressor": "c", "visual_tokens": 1,
        "benchmark": benchmark.name, "task": benchmark.task, "metric": benchmark.metric,
        "item_id": item.item_id, "image_id": item.image_id, "references": item.references,
        "choices": list(item.choices), "category": item.category, "group": item.group,
        "about": about, "prediction": prediction,
    }  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_every_row_becomes_an_item_that_its_own_answer_solves(data, tmp_path, name):
    benchmark, items = load(SPECS[name], Where(tmp_path, data))
    assert len(items) == TABLES[name]().num_rows
    assert len({item.item_id for item in items}) == len(items)
    for item in items:
        assert item.images
        for image in item.images:
            assert open_image(benchmark.images, image).size == (24, 24)
    rows = [score_item(row_of(item, benchmark, item.references[0])) for item in items]
    [total] = aggregate(rows)
    assert total["score"] == pytest.approx(1.0)
    assert total["error"] == pytest.approx(0.0)
    # Items with the same picture are one cluster.
    assert len({item.image_id for item in items}) == len({item.images for item in items})
    [compat] = aggregate([score_item(row_of(i, benchmark, "?!"), True) for i in items], True)
    assert compat["score"] <= 0.5
    assert compat["parser"].endswith("(lmms-eval 0.7)")


PROMPTS = {
    "mme": "Is there a Yes dog?" + SHORT,
    "gqa": "Is it red?" + SHORT,
    "ai2d": "Which?\nA. leaf\nB. root\nC. stem\nD. bud" + LETTER,
    "mmbench": "Which one? There are several options:\nA. cat\nB. dog\nC. cow\nD. pig\n" + LETTER,
    "mmmu": "Is <image 2> like <image 1>?\nA. <image 3>\nB. it's\nC. no\n" + LETTER,
    "scienceqa": "Which?\nA. a\nB. b" + LETTER,
    "mathvista": "How far? (Unit: m)\nAnswer the question using a single floating-point number "
    "with one decimal place.",
    "pope": "Is there a dog in the image?" + SHORT,
    "chartqa": "What is the value?\nAnswer the question with a single word.",
    "docvqa": "What is the date?" + SHORT,
    "textvqa": "What does the ibm sign say?" + SHORT,
    "vizwiz": "What is this?\nWhen the provided information is insufficient, respond with "
    "'Unanswerable'." + SHORT,
    "vqav2": "Where is he looking?" + SHORT,
}


@pytest.mark.parametrize("name", SPECS)
def test_prompts_are_those_of_the_field(data, tmp_path, name):
    assert items_of(name, data, tmp_path)[0].prompt == PROMPTS[name]


def test_other_prompts(data, tmp_path):
    hinted = items_of("mmbench", data, tmp_path)[1]
    assert hinted.prompt == (
        "a hint Which one? There are several options:\nA. up\nB. down\n" + LETTER
    )
    assert hinted.choices == ("up", "down")
    assert items_of("scienceqa", data, tmp_path)[1].prompt.startswith("Context: Look.\nWhich?")
    several, opened = items_of("mmmu", data, tmp_path)
    assert len(several.images) == 3
    assert several.category == "Art_Theory"
    assert opened.prompt == "How much in <image 1>?\n" + SHORT
    assert opened.references == ["24/7", "3.429"]
    hints = [item.prompt.partition("\n")[2] for item in items_of("mathvista", data, tmp_path)]
    assert hints[2:] == [
        "Answer the question using a single integer number.",
        "Answer the question using a Python list.",
    ]


def test_limit_takes_whole_pairs_and_circles(data, tmp_path):
    assert len(items_of("mme", data, tmp_path, 5)) == 4
    assert len(items_of("mme", data, tmp_path, 1)) == 2
    circle = items_of("mmbench", data, tmp_path, 5)
    assert [item.item_id for item in circle] == ["0", "1000000", "2000000", "3000000"]
    assert len(items_of("mmbench", data, tmp_path, 6)) == 6
    assert len(items_of("gqa", data, tmp_path, 3)) == 3


def as_texts(table: pa.Table) -> list[dict]:
    rows = table.to_pylist()
    for row in rows:
        row["image"] = f"{row['image']['path']}"
    return rows


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_text_files_name_their_pictures(tmp_path, suffix):
    (tmp_path / "pictures").mkdir()
    for row in mme().to_pylist():
        (tmp_path / "pictures" / row["image"]["path"]).write_bytes(row["image"]["bytes"])
    rows = as_texts(mme())
    file = tmp_path / "data" / f"mme.{suffix}"
    file.parent.mkdir()
    if suffix == "csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        file.write_text("\n".join(lines))
    elif suffix == "json":
        file.write_text(json.dumps(rows))
    else:
        file.write_text("\n".join(map(json.dumps, rows)))
    where = Where(tmp_path / "unused", file.parent, images=tmp_path / "pictures")
    benchmark, items = load(SPECS["mme"], where)
    assert items[0].images == ("0.png",)
    assert open_image(benchmark.images, "0.png").size == (24, 24)
    assert not (tmp_path / "unused").exists()


def test_answers_and_numbers_of_a_csv(tmp_path):
    answers = json.dumps(["x"] * 10).replace('"', '""')
    file = tmp_path / "textvqa.csv"
    file.write_text(f'question_id,image,question,answers\n1,a.jpg,what IS it?,"{answers}"\n')
    [item] = load(SPECS["textvqa"], Where(tmp_path, file))[1]
    assert (item.item_id, item.references) == ("1", ["x"] * 10)


def test_folders_that_datasets_saved(tmp_path):
    from datasets import Dataset, DatasetDict, Image

    table = pope()
    rows = Dataset(table).cast_column("image", Image())
    DatasetDict({"test": rows, "train": rows.select([0])}).save_to_disk(tmp_path / "pope")
    assert len(items_of("pope", tmp_path, tmp_path / "p")) == 4
    rows.save_to_disk(tmp_path / "alone" / "pope")
    assert len(items_of("pope", tmp_path / "alone", tmp_path / "p")) == 4
    DatasetDict({"test": rows, "train": rows}).save_to_disk(tmp_path / "mmbench")
    with pytest.raises(InputError, match=r"split 'dev'; it has test, train"):
        items_of("mmbench", tmp_path, tmp_path / "p")


def test_images_of_gqa_may_be_a_folder(tmp_path):
    pq.write_table(gqa(), tmp_path / "gqa.parquet")
    with pytest.raises(InputError, match=r"no 'testdev_balanced_images' with the images"):
        items_of("gqa", tmp_path, tmp_path / "p")
    items = items_of("gqa", tmp_path, tmp_path / "p", images=tmp_path)
    assert [item.images for item in items[:2]] == [("n0.jpg",), ("n1.jpg",)]
    folder = tmp_path / "gqa"
    for config, table in (("instructions", gqa()), ("images", gqa_images().slice(1))):
        place = folder / f"testdev_balanced_{config}"
        place.mkdir(parents=True)
        pq.write_table(table, place / "testdev-0.parquet")
    (tmp_path / "gqa.parquet").unlink()
    with pytest.raises(InputError, match=r"row 0: no image 'n0' \(imageId\)"):
        items_of("gqa", tmp_path, tmp_path / "p")


def test_bytes_that_are_no_picture_are_kept_for_the_runner_to_count(tmp_path):
    rows = pope().to_pylist()
    rows[0]["image"]["bytes"] = b"<html>"
    pq.write_table(pa.Table.from_pylist(rows, schema=pope().schema), tmp_path / "pope.parquet")
    benchmark, items = load(SPECS["pope"], Where(tmp_path / "p", tmp_path))
    assert len(items) == 4
    with pytest.raises(InputError, match="web page"):
        open_image(benchmark.images, items[0].images[0])


def changed(table: pa.Table, edit) -> pa.Table:
    rows = table.to_pylist()
    edit(rows)
    return pa.Table.from_pylist(rows)


def drop(column):
    return lambda rows: [row.pop(column) for row in rows]


def put(column, value, row=1):
    return lambda rows: (
        rows[row].update({column: value})
        if row is not None
        else [r.update({column: value}) for r in rows]
    )


@pytest.mark.parametrize(
    ("name", "make", "edit", "message"),
    [
        ("mme", mme, drop("category"), r"row 0: no column 'category'; it has question_id.*the row"),
        ("mme", mme, put("answer", "maybe"), r"row 1, column 'answer': expected Yes or No, found"),
        ("mme", mme, lambda rows: rows.pop(), r"image code_reasoning/\S+ has 1 of its 2 questions"),
        ("mmbench", mmbench, lambda rows: rows.pop(), "question 0 has 3 of its 4 rotations"),
        ("mmbench", mmbench, put("answer", "E"), r"expected a letter of AB, found str 'E'"),
        ("mmbench", mmbench, put("index", None, 0), r"row 0, column 'index': empty; the row: "),
        ("mmbench", mmbench, put("index", "x1", None), "expected a whole number, found str 'x1'"),
        ("pope", pope, put("question_id", "0"), "row 1: id 'adversarial/0' stands twice; first in"),
        ("pope", pope, put("image", None, 0), "row 0, column 'image': empty"),
        (
            "textvqa",
            textvqa,
            put("answers", ["a"], None),
            "1 answer, but metric vqa needs at leas",
        ),
        (
            "textvqa",
            textvqa,
            put("answers", "a", None),
            "expected a list of answers, found str 'a'",
        ),
        ("textvqa", textvqa, put("question", "  "), "column 'question': expected a text"),
        ("textvqa", textvqa, lambda rows: rows.clear(), "no rows in"),
    ],
)
def test_faulty_rows_are_named(tmp_path, name, make, edit, message):
    pq.write_table(changed(make(), edit), tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match=message) as caught:
        items_of(name, tmp_path, tmp_path / "p")
    assert "\n" not in str(caught.value)


def test_incomplete_groups_pass_when_told(tmp_path):
    pq.write_table(mme().slice(0, 3), tmp_path / "mme.parquet")
    assert len(items_of("mme", tmp_path, tmp_path / "p", incomplete=True)) == 3


def test_data_that_is_not_there(tmp_path, data):
    with pytest.raises(InputError, match=r"--data-dir .*none does not exist"):
        items_of("mme", tmp_path / "none", tmp_path)
    with pytest.raises(InputError, match=r"has no data of 'mme'; put it at .*mme/\*\.parquet"):
        items_of("mme", tmp_path, tmp_path)
    (tmp_path / "POPE").mkdir()
    with pytest.raises(InputError, match="has no data of 'mme'"):
        items_of("mme", tmp_path, tmp_path)
    (tmp_path / "vizwiz").mkdir()
    pq.write_table(textvqa(), tmp_path / "vizwiz" / "train-0.parquet")
    with pytest.raises(InputError, match=r"no files of the split 'val'.*, but of train"):
        items_of("vizwiz", tmp_path, tmp_path)
    (tmp_path / "mmmu.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(InputError, match=r"mmmu\.parquet is a damaged or truncated Parquet file"):
        items_of("mmmu", tmp_path, tmp_path)
    # Offline, as the tests are, the hub gives nothing.
    with pytest.raises(
        InputError, match=r"mme is not to be had from the hub \(lmms-lab-encoder/MME"
    ):
        load(SPECS["mme"], Where(tmp_path))


def test_names():
    assert find("MME") is SPECS["mme"]
    with pytest.raises(InputError, match="no benchmark 'chart': did you mean chartqa"):
        find("chart")
    with pytest.raises(InputError, match="there are mme, gqa"):
        find("zzzzzz")
    assert len(SPECS) == 13
    assert {spec.metric for spec in SPECS.values()} == set(metrics.METRICS)
    for spec in SPECS.values():
        assert re.fullmatch(r"arXiv \d{4}\.\d{5}", spec.paper)


def test_options_of_mmbench_that_say_none_are_options(tmp_path):
    rows = mmbench().to_pylist()
    for row in rows:
        if row["index"] % 1_000_000 == 1:
            row |= {"C": "None", "answer": "C"} if row["index"] == 1 else {"D": "NaN", "C": "nan"}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mmbench.parquet")
    items = items_of("mmbench", tmp_path, tmp_path, incomplete=True)
    found = {item.item_id: item for item in items}
    assert found["1"].choices == ("up", "down", "None")
    assert "\nC. None\n" in found["1"].prompt
    assert found["1"].references == ["C"]
    assert found["1000001"].choices == ("down", "up")
