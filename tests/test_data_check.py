"""check-data: every image opened, every broken row set aside with its reason."""

import json

import pytest
from PIL import Image
from shell import vtc

from vtc.data.checks import Check
from vtc.data.images import ImageFault, check_image, open_image
from vtc.data.sources import open_source
from vtc.tables import specs
from vtc.tables.read import read_rows


def check(files, root, **more):
    """A check's clean samples, findings and summary."""
    samples, findings = [], []
    found = Check(root, samples.append, findings.append, **more).run([*map(open_source, files)])
    return samples, findings, found


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
        ask("0.png", name="b"),
        ask("web.png"),
        ask("empty.png"),
    ]
    (photos / "web.png").write_text("<!DOCTYPE html><html>404</html>")
    (photos / "empty.png").touch()
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    samples, findings, found = check([tmp_path / "rows.json"], photos)
    assert [s["sample_id"] for s in samples] == ["a", "a#2", "b"]
    assert [(r["row"], r["reason"].split(" (")[0]) for r in findings if not r["kept"]] == [
        (1, "duplicate: same id, same content"),
        (3, "image damaged or truncated"),
        (4, "image missing"),
        (5, "image leaves the image root"),
        (6, "1 <image> mark for 2 images"),
        (8, "image is no image but a web page"),
        (9, "image is empty"),
    ]
    assert [(r["row"], r["reason"]) for r in findings if r["kept"]] == [
        (7, "the content of an earlier row under another id")
    ]
    assert (found.n_rows, found.n_clean, found.n_images, found.renamed) == (10, 3, 2, 1)
    assert "10 rows: 3 clean, 7 rejected" in found.lines()[0]


def test_rows_without_ids_are_duplicates_by_their_content(photos, tmp_path):
    rows = [{**ask("0.png"), "id": None}, {**ask("0.png"), "id": None}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    samples, findings, _ = check([tmp_path / "rows.jsonl"], photos)
    assert [s["sample_id"] for s in samples] == ["rows-0"]
    assert [r["reason"] for r in findings] == ["duplicate: same content"]


def test_many_rows_keep_their_order_and_open_every_image_once(photos, tmp_path, monkeypatch):
    looked = []

    def look(root, path):
        looked.append(path)
        return check_image(root, path)

    monkeypatch.setattr("vtc.data.checks.check_image", look)
    rows = [ask(f"{n % 4}.png", answer=str(n), name="same") for n in range(3000)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    samples, _, found = check([tmp_path / "rows.json"], photos, workers=3)
    assert [s["conversations"][1]["text"] for s in samples] == [str(n) for n in range(3000)]
    assert len({s["sample_id"] for s in samples}) == 3000
    assert sorted(looked) == ["0.png", "1.png", "2.png", "3.png"]
    assert found.renamed == 2999


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.97, 0.5])
def test_truncated_jpegs_are_found(tmp_path, progressive, kept):
    Image.effect_noise((300, 200), 80).convert("RGB").save(
        tmp_path / "whole.jpg", progressive=progressive
    )
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: int(len(whole) * kept)])
    assert check_image(tmp_path, "whole.jpg") is None
    for opening in (check_image, open_image):
        with pytest.raises(ImageFault, match="truncated"):
            opening(tmp_path, "cut.jpg")


def test_a_name_of_another_type_is_noted_and_the_row_kept(tmp_path):
    for name, kind in (("a.jpg", "GIF"), ("b.jpeg", "JPEG"), ("c.dat", "PNG"), ("d.PNG", "JPEG")):
        Image.new("RGB", (8, 8)).save(tmp_path / name, kind)
    rows = [ask(name, name=name) for name in ("a.jpg", "b.jpeg", "c.dat", "d.PNG")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    samples, findings, found = check([tmp_path / "rows.json"], tmp_path)
    assert len(samples) == 4
    assert [(r["image"], r["reason"], r["kept"]) for r in findings] == [
        ("a.jpg", "image is a GIF, named JPEG", True),
        ("d.PNG", "image is a JPEG, named PNG", True),
    ]
    assert "kept, but note:" in found.lines()


def test_a_tokenizer_judges_rows(photos, tmp_path):
    from data_tokenizers import byte_tokenizer

    from vtc.data.chat_templates import NAMED
    from vtc.data.judge import Judge
    from vtc.data.labels import TurnEncoder

    picky = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer = byte_tokenizer(picky + NAMED["zephyr"], ["</s>"], eos_token="</s>")
    rows = [
        ask("0.png", name="good"),
        ask("1.png", answer="y" * 200, name="long"),
        ask("2.png", answer="</s> yes", name="spells"),
        ask("3.png", name="system"),
    ]
    rows[3]["conversations"].insert(0, {"from": "system", "value": "be kind"})
    two = ask(["0.png", "1.png"], name="two")
    two["conversations"][0]["value"] = "<image>" * 2
    (tmp_path / "rows.json").write_text(json.dumps([*rows, two]))
    judge = Judge(TurnEncoder(tokenizer), max_length=100, n_visual=50)
    samples, findings, _ = check([tmp_path / "rows.json"], photos, judge=judge)
    length = len("<|user|>\n") + len("\nIs it?") + len("</s>")
    assert [s["sample_id"] for s in samples] == ["good", "long", "spells"]
    assert samples[0]["n_text_tokens"] > 30 > length - 4
    assert [(r["sample_id"], r["kept"]) for r in findings] == [
        ("long", True), ("spells", True), ("system", False), ("two", False),
    ]  # fmt: skip
    reasons = [r["reason"] for r in findings]
    assert reasons[0] == "longer than 100 tokens: its end is cut in training"
    assert reasons[1] == "a turn spells the special token </s>"
    assert "no system" in reasons[2]
    assert reasons[3] == "longer than 100 tokens: no answer or image is left"


def test_command_writes_samples_and_rejects(photos, tmp_path):
    rows = [ask(f"{n % 4}.png", name=str(n)) for n in range(199)] + [ask("absent.png")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = vtc(
        *("check-data", "rows.jsonl", "--images", "photos", "-o", "samples.parquet"),
        *("--rejects", "rejects.csv"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "200 rows: 199 clean, 1 rejected (0.50%)" in done.stderr
    read = read_rows(tmp_path / "samples.parquet", specs.SAMPLES)
    assert len(read.rows) == 199
    assert read.footer["settings"]["image_root"] == str(photos)
    found = read_rows(tmp_path / "rejects.csv", specs.REJECTS).rows
    assert [row["image"] for row in found if not row["kept"]] == ["absent.png"]
    again = vtc("check-data", "rows.jsonl", "-o", "samples.parquet", cwd=tmp_path)
    assert again.returncode == 2
    assert "samples.parquet exists" in again.stderr


def test_too_many_bad_rows_stop_the_command(photos, tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([ask("0.png"), ask("cut.png")]))
    done = vtc(
        *("check-data", "rows.json", "--images", "photos", "-o", "samples.parquet"),
        *("--rejects", "rejects.parquet", "--max-bad", "10%"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "1 of 2 rows is bad (50.00%), more than --max-bad 10.00%" in done.stderr
    assert "the commonest fault: image damaged or truncated" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error")
    assert not (tmp_path / "samples.parquet").exists()
    assert (tmp_path / "rejects.parquet").exists()


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("odd", ['["z"]', "[]", "3", "null", '"text"'])
def test_json_that_is_no_object_is_set_aside(photos, tmp_path, at, odd):
    if at == 0 and not odd.startswith("["):
        pytest.skip("a file of rows begins with [ or {")
    lines = [json.dumps(ask("0.png", name="a")), json.dumps(ask("1.png", name="b"))]
    lines.insert(at, odd)
    for text in ("\n".join(lines), f"[{','.join(lines)}]", f"[\n{','.join(lines)}\n]\n"):
        (tmp_path / "rows.json").write_text(text)
        samples, findings, found = check([tmp_path / "rows.json"], photos)
        assert (found.n_clean, found.n_rejected) == (2, 1)
        assert [row["sample_id"] for row in samples] == ["a", "b"]
        assert [(row["row"], row["reason"]) for row in findings] == [
            (at, "the row is no JSON object")
        ]


def test_a_samples_table_names_its_image_root(photos, tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([ask("0.png")]))
    command = ("check-data", "rows.json", "--images", "photos", "-o", "samples.parquet")
    assert vtc(*command, cwd=tmp_path).returncode == 0
    again = vtc("check-data", "samples.parquet", "--format", "csv", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    away = vtc("check-data", "samples.parquet", "--images", ".", cwd=tmp_path)
    assert away.returncode == 2
    assert "images were sought in . (--images), but stand in photos" in away.stderr


def test_no_rows_and_one_name_for_two_outputs(photos, tmp_path):
    (tmp_path / "rows.json").write_text("[]")
    done = vtc("check-data", "rows.json", "-o", "s.csv", cwd=tmp_path)
    assert done.returncode == 2
    assert "Error: rows.json holds no rows; no samples written\n" in done.stderr
    done = vtc("check-data", "rows.json", "-o", "s.csv", "--rejects", "s.csv", cwd=tmp_path)
    assert "-o and --rejects are both s.csv" in done.stderr
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": 1, "conversations": []}, {"id": ]', "rows.json, row 1: broken JSON"),
        (
            '{"data": [{"id": 1}]}',
            "one object, not a list of rows; they seem to stand under its key 'data'",
        ),
        ('{\n "id": 1}', "line 1: broken JSON (Expecting property name"),
        ("", "rows.json is empty"),
        (None, "rows.json does not exist"),
    ],
)
def test_broken_files_are_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "rows.json").write_text(text)
    done = vtc("check-data", "rows.json", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
