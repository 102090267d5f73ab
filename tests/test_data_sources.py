"""Rows from files and Hugging Face datasets, in the usual formats, and mixtures of them."""

import base64
import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vtc import cli
from vtc.data.conversations import RowFault, parse_row
from vtc.data.images import open_image
from vtc.data.mixture import mix, parse_weights
from vtc.data.pictures import Pictures
from vtc.data.samples import read_samples
from vtc.data.sources import Choice, image_root, open_source
from vtc.errors import InputError
from vtc.tables import specs
from vtc.tables.json_stream import stream_json
from vtc.tables.read import read_rows


def picture(red=0, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (20, 10), (red, 0, 0)).save(file, kind)
    return file.getvalue()


def llava(name, answer="yes", image="0.png"):
    turns = [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": turns}


def vtc(*arguments, code=0):
    with pytest.raises(SystemExit) as caught:
        cli.run([str(argument) for argument in arguments])
    assert caught.value.code == code


def texts(sample):
    return [turn["text"] for turn in sample["conversations"]]


def test_openai_messages():
    row = {
        "images": ["b.png"],
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "a.png"}},
                {"type": "text", "text": "left, and"},
                {"type": "image"},
                {"type": "text", "text": "right?"},
            ]},
            {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
            {"role": "user", "content": "sure?"},
            {"role": "assistant", "content": "sure"},
        ],
    }  # fmt: skip
    sample = parse_row(row, "x-0")
    assert sample["images"] == ["a.png", "b.png"]
    assert texts(sample) == [
        "be kind", "<image>\nleft, and\n<image>\nright?", "yes", "sure?", "sure",
    ]  # fmt: skip


def test_messages_whose_parts_count_the_images():
    parts = [
        {"type": "text", "text": "hm?", "index": None},
        {"type": "image", "text": None, "index": 1},
        {"type": "image", "text": None, "index": 0},
    ]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "no", "index": None}]}
    row = {"images": ["a", "b"], "messages": [{"role": "user", "content": parts}, answer]}
    assert parse_row(row, "x")["images"] == ["b", "a"]


def test_cauldron_texts_with_pictures(tmp_path):
    row = {
        "images": [{"bytes": picture(1), "path": None}, {"bytes": picture(2), "path": "x.png"}],
        "texts": [
            {"user": "what?", "assistant": "red", "source": "s"},
            {"user": "and?", "assistant": "redder", "source": "s"},
        ],
    }
    with pytest.raises(RowFault, match="vtc check-data makes it a file"):
        parse_row(row, "x")
    keep = Pictures(tmp_path / "p", tmp_path)
    sample = parse_row(row, "x", keep)
    assert texts(sample) == ["<image>\n<image>\nwhat?", "red", "and?", "redder"]
    reds = [open_image(tmp_path, path).getpixel((0, 0))[0] for path in sample["images"]]
    assert reds == [1, 2]
    assert parse_row(row, "x", keep)["images"] == sample["images"]
    assert len([*tmp_path.rglob("*.png")]) == 2
    with pytest.raises(InputError, match="is not below the image root"):
        Pictures(tmp_path / "p", tmp_path / "q")(picture())


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("https://a.b/c.png", "web address"),
        ("data:image/png,abc", "no base64 data URL"),
        ({"bytes": b"no image", "path": None}, "no JPEG, PNG"),
        ({"bytes": None, "path": None}, "neither a path"),
        (3, "neither a path"),
    ],
)
def test_images_that_are_none_are_named(tmp_path, image, reason):
    with pytest.raises(RowFault, match=reason):
        parse_row(llava("a", image=image), "x", Pictures(tmp_path, tmp_path))


def test_data_urls_become_files(tmp_path):
    url = "data:image/jpeg;base64," + base64.b64encode(picture(9, "JPEG")).decode()
    path = parse_row(llava("a", image=url), "x", Pictures(tmp_path, tmp_path))["images"][0]
    assert path.endswith(".jpg")
    assert (tmp_path / path).read_bytes() == picture(9, "JPEG")


rows = [llava(str(number), answer="ü" * number) for number in range(9)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("lines", [False, True])
def test_json_files(tmp_path, packed, lines):
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows, ensure_ascii=False)
    file = tmp_path / ("rows.json" + ".gz" * packed)
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    source = open_source(file)
    assert list(source.rows()) == rows
    assert list(source.rows()) == rows
    assert (source.image_root, source.stem) == (tmp_path, "rows")
    assert list(open_source(file, Choice(limit=2)).rows()) == rows[:2]
    if packed:
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(InputError, match="damaged or truncated gzip"):
            list(open_source(file).rows())


def test_json_is_read_in_constant_memory():
    row = {"id": 1, "text": "x" * 10_000}

    class Endless(io.RawIOBase):
        """2,000 rows of 10 kB, made as they are read."""

        left = b"[" + json.dumps(row).encode()
        count = 1

        def readable(self):
            return True

        def readinto(self, buffer):
            if not self.left:
                self.count += 1
                self.left = b"," + json.dumps(row).encode() if self.count <= 2000 else b"]"
                self.left = b"" if self.count > 2001 else self.left
            part = self.left[: len(buffer)]
            buffer[: len(part)] = part
            self.left = self.left[len(part) :]
            return len(part)

    tracemalloc.start()
    count = sum(1 for _ in stream_json(io.BufferedReader(Endless()), "rows"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2000
    assert peak < 12e6


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Datasets of pictures as `datasets` saves them: one, a dict of splits, Parquet files."""
    from datasets import Dataset, DatasetDict, List
    from datasets import Image as Picture

    folder = tmp_path_factory.mktemp("datasets")
    columns = {
        "images": [[{"bytes": picture(n), "path": None}] for n in range(6)],
        "texts": [[{"user": "what?", "assistant": f"red {n}", "source": "s"}] for n in range(6)],
    }
    made = Dataset.from_dict(columns)
    made = made.cast_column("images", List(Picture()))
    made.save_to_disk(folder / "saved")
    DatasetDict({"train": made, "val": made.select([0])}).save_to_disk(folder / "dict")
    (folder / "files").mkdir()
    made.to_parquet(folder / "files/train-00000.parquet")
    return folder


@pytest.mark.parametrize(
    ("name", "choice", "count"),
    [
        ("saved", Choice(), 6),
        ("dict", Choice(), 6),
        ("dict", Choice(split="val"), 1),
        ("files", Choice(), 6),
        ("files", Choice(limit=4), 4),
        ("files/train-00000.parquet", Choice(), 6),
    ],
)
def test_datasets(datasets, tmp_path, name, choice, count):
    source = open_source(datasets / name, choice)
    found = list(source.rows())
    assert len(found) == count
    assert source.n_rows in (None, count)
    assert found[0]["images"][0]["bytes"] == picture(0)
    # Its pictures are its own, so they go where pictures go.
    assert image_root([source], None, tmp_path) == tmp_path


def test_check_data_makes_samples_of_a_dataset(datasets, tmp_path, capsys):
    out = tmp_path / "samples.parquet"
    vtc("check-data", datasets / "saved", "-o", out)
    read = read_rows(out, specs.SAMPLES)
    assert [row["sample_id"] for row in read.rows] == [f"saved-{n}" for n in range(6)]
    assert read.footer["settings"]["image_root"] == str(tmp_path / "samples-images")
    samples, root = read_samples([out])
    assert [open_image(root, s["images"][0]).getpixel((0, 0))[0] for s in samples] == [*range(6)]
    assert texts(samples[3]) == ["<image>\nwhat?", "red 3"]
    vtc("check-data", datasets / "saved", "--format", "csv", code=2)
    assert "give a folder with --save-images" in capsys.readouterr().err
    with pytest.raises(InputError, match="row 0: its image stands in the row itself"):
        read_samples([datasets / "saved"], tmp_path)


@pytest.mark.parametrize(
    ("name", "choice", "message"),
    [
        ("dict", Choice(split="test"), "no split 'test'; it has train, val"),
        ("saved", Choice(split="test"), "has no splits"),
        ("files", Choice(subset="absent"), "absent"),
        ("absent/dataset", Choice(), "dataset absent/dataset: "),
        ("absent/rows.json", Choice(), "absent/rows.json does not exist"),
        ("empty", Choice(), "folder empty holds no dataset"),
        ("broken", Choice(), "dataset broken: "),
    ],
)
def test_datasets_that_are_not_there(datasets, monkeypatch, name, choice, message):
    monkeypatch.chdir(datasets)
    Path("empty").mkdir(exist_ok=True)
    Path("broken").mkdir(exist_ok=True)
    Path("broken/rows.json").write_text('[{"id": 1}, {"id": ]')
    with pytest.raises(InputError, match=message):
        list(open_source(name, choice).rows())


def test_hub_ids_name_rows_without_the_split():
    from vtc.data.sources import Source

    assert Source("org/name:train", lambda: iter(())).stem == "org-name"


def sources_of(folder: Path, *names: str) -> list[Path]:
    """A JSON file of 4 rows and one image in each of several folders."""
    files = []
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "0.png").write_bytes(picture(len(files)))
        files.append(folder / name / f"{name}.json")
        files[-1].write_text(json.dumps([llava(f"{name}{n}") for n in range(4)]))
    return files


def test_several_sources_with_roots_of_their_own(tmp_path):
    files = sources_of(tmp_path, "a", "b")
    samples, root = read_samples(files)
    assert root == tmp_path
    assert {s["images"][0] for s in samples} == {"a/0.png", "b/0.png"}
    files[1].write_text(json.dumps([llava("x", image="../a/0.png")]))
    with pytest.raises(InputError, match=r"image \.\./a/0.png leaves the image root"):
        read_samples(files)


def test_text_alone_needs_no_root():
    talk = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
    assert parse_row({"conversations": talk}, "x")["images"] == []


def test_weights_are_passes_over_a_source(tmp_path):
    files = sources_of(tmp_path, "a", "b")
    weights = f"{files[1]}=2.5"
    once, again = (read_samples(files, weights=weights, seed=3).rows for _ in range(2))
    assert once == again
    names = [row["sample_id"] for row in once]
    assert names[:4] == ["a0", "a1", "a2", "a3"]
    counts = [names.count(f"b{n}") for n in range(4)]
    assert sorted(counts) == [2, 2, 3, 3]
    drawn = {tuple(mix([range(100)], [0.1], seed)) for seed in range(5)}
    assert len(drawn) == 5
    assert all(len(rows) == 10 for rows in drawn)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", "give 2 numbers"),
        ("1,x", "'x' is no number above 0"),
        ("1,-1", "'-1' is no number"),
        ("1,nan", "no number"),
        ("c=2", "'c=2' is no NAME=W of a, b"),
        ("a=2,3", "'3' is no NAME=W"),
    ],
)
def test_bad_weights_are_named(text, message):
    with pytest.raises(InputError, match=message):
        parse_weights(text, ["a", "b"])
    assert parse_weights(None, ["a", "b"]) == (1, 1)
    assert parse_weights("2, 1", ["a", "b"]) == (2, 1)
    with pytest.raises(InputError, match=r"0.01 leaves none of 3 samples"):
        mix([[1, 2, 3]], [0.01], 0)


def test_another_parquet_table_is_refused(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    assert list(open_source(tmp_path / "a.parquet").rows()) == [{"a": 1}]
    (tmp_path / "b.parquet").write_text("[]")
    with pytest.raises(InputError, match="is not a Parquet file"):
        open_source(tmp_path / "b.parquet")


@pytest.fixture(scope="module")
def two_sources(tiny_world, tmp_path_factory):
    """Two JSON files of 4 rows each over the tiny world's images, and its backbones' flags."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("a", "b"):
        (folder / f"{name}.json").write_text(json.dumps([llava(f"{name}{n}") for n in range(4)]))
    backbones = ("--encoder", tiny_world.encoder, "--llm", tiny_world.qwen)
    return folder, (*backbones, "--images", tiny_world.images, "--visual-tokens", 4)


def test_training_takes_mixtures_image_modes_and_query_positions(two_sources, monkeypatch, capsys):
    folder, flags = two_sources
    monkeypatch.chdir(folder)
    more = ("--image-mode", "pad", "--query-position", "before", "--chat-template", "chatml")
    vtc("train-projector", "a.json", "b.json", *flags, *more, "--weights", "b.json=2.5",
        "--dry-run", "-o", "runs")  # fmt: skip
    said = capsys.readouterr().out
    for line in (
        "# samples = 14",
        'image-mode = "pad"',
        'query-position = "before"',
        'weights = "b.json',
    ):
        assert f"\n{line}" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--weights", "1,2,3"), "--weights 1,2,3: give 2 numbers"),
        (("--chat-template", "absent"), "absent is no file of text, nor one of vicuna"),
        (("--images", "absent"), "image root absent is no folder; name it with --images"),
    ],
)
def test_training_names_what_is_wrong_with_its_data(
    two_sources, monkeypatch, capsys, flags, message
):
    folder, given = two_sources
    monkeypatch.chdir(folder)
    vtc("train-projector", "a.json", "b.json", *given, *flags, "-o", "runs", code=2)
    assert message in capsys.readouterr().err
    assert not (folder / "runs").exists()
