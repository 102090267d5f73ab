"""check-data: every image opened, every broken row set aside with its reason."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from vtc.data.checks import check_files
from vtc.data.images import ImageFault, open_image
from vtc.tables import specs
from vtc.tables.read import read_rows


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "vtc", *map(str, arguments)], cwd=cwd, capture_output=True, text=True
    )


def ask(image, answer="yes", name="s"):
    turns = [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": turns}


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(4):
        Image.new("RGB", (20, 10), (number * 60, 0, 0)).save(root / f"{number}.png")
    Image.effect_noise((60, 60), 50).save(tmp_path / "noise.png")
    whole = (tmp_path / "noise.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "text.png").write_text("no image")
    Image.new("RGB", (3, 3)).save(tmp_path / "outside.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    return root


def test_open_image_is_rgb_and_lays_transparency_on_white(photos):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(photos / "clear.png")
    image = open_image(photos, "clear.png")
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (255, 255, 255))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("absent.png", "missing"),
        ("cut.png", "damaged or truncated"),
        ("text.png", "is no image"),
        ("../outside.png", "leaves the image root"),
        ("link.png", "leaves the image root"),
        ("/etc/hostname", "leaves the image root"),
        (".", "is a folder"),
        ("a\0b", "NUL"),
    ],
)
def test_bad_images_are_named(photos, path, reason):
    with pytest.raises(ImageFault, match=reason) as caught:
        open_image(photos, path)
    assert caught.value.image == path


def test_huge_images_are_refused(photos, monkeypatch):
    monkeypatch.setattr("vtc.data.images.MAX_PIXELS", 100)
    with pytest.raises(ImageFault, match="more than 100 pixels"):
        open_image(photos, "0.png")


def test_rows_are_sorted_out(photos, tmp_path):
    rows = [
        ask("0.png", name="a"),
        ask("0.png", name="a"),
        ask("1.png", name="a"),
        ask("cut.png"),
        ask("absent.png"),
        ask("../outside.png"),
        {**ask("2.png"), "image": ["2.png", "3.png"]},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    checked = check_files([tmp_path / "rows.json"], photos)
    assert [s["sample_id"] for s in checked.samples] == ["a", "a#2"]
    assert [(r["row"], r["reason"].split(" (")[0]) for r in checked.rejects] == [
        (1, "duplicate: same id, same content"),
        (3, "image damaged or truncated"),
        (4, "image missing"),
        (5, "image leaves the image root"),
        (6, "1 <image> mark for 2 images"),
    ]
    assert (checked.n_rows, checked.n_images, checked.renamed) == (7, 2, 1)
    assert "7 rows: 2 clean, 5 rejected" in checked.summary()[0]


def test_command_writes_samples_and_rejects(photos, tmp_path):
    rows = [ask(f"{n % 4}.png", name=str(n)) for n in range(199)] + [ask("absent.png")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = run(
        *("check-data", "rows.jsonl", "--images", "photos", "-o", "samples.parquet"),
        *("--rejects", "rejects.csv"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "200 rows: 199 clean, 1 rejected (0.50%)" in done.stderr
    read = read_rows(tmp_path / "samples.parquet", specs.SAMPLES)
    assert len(read.rows) == 199
    assert read.footer["settings"]["image_root"] == str(photos)
    assert read_rows(tmp_path / "rejects.csv").rows[0]["image"] == "absent.png"
    again = run("check-data", "rows.jsonl", "-o", "samples.parquet", cwd=tmp_path)
    assert again.returncode == 2
    assert "samples.parquet exists" in again.stderr


def test_too_many_bad_rows_stop_the_command(photos, tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([ask("0.png"), ask("cut.png")]))
    done = run(
        *("check-data", "rows.json", "--images", "photos", "-o", "samples.parquet"),
        *("--rejects", "rejects.parquet", "--max-bad", "10%"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "1 of 2 rows are bad (50.00%), more than --max-bad 10.00%" in done.stderr
    assert not (tmp_path / "samples.parquet").exists()
    assert (tmp_path / "rejects.parquet").exists()


def test_a_samples_table_names_its_image_root(photos, tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([ask("0.png")]))
    command = ("check-data", "rows.json", "--images", "photos", "-o", "samples.parquet")
    assert run(*command, cwd=tmp_path).returncode == 0
    again = run("check-data", "samples.parquet", "--format", "csv", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    away = run("check-data", "samples.parquet", "--images", ".", cwd=tmp_path)
    assert away.returncode == 2
    assert "images were sought in . (--images)" in away.stderr


def test_no_rows_and_one_name_for_two_outputs(photos, tmp_path):
    (tmp_path / "rows.json").write_text("[]")
    done = run("check-data", "rows.json", "-o", "s.csv", cwd=tmp_path)
    assert done.returncode == 2
    assert "the files hold no rows" in done.stderr
    done = run("check-data", "rows.json", "-o", "s.csv", "--rejects", "s.csv", cwd=tmp_path)
    assert "-o and --rejects are both s.csv" in done.stderr
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": 1, "conversations": []}, {"id": ]', "rows.json, row 1: broken JSON"),
        ("", "rows.json is empty"),
        (None, "rows.json does not exist"),
    ],
)
def test_broken_files_are_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "rows.json").write_text(text)
    done = run("check-data", "rows.json", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
