"""Small data of the thirteen benchmarks, with the fields and Arrow types of the real data sets."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TEXTS = pa.list_(pa.string())


def picture(number: int) -> dict:
    """A picture as the hub's tables hold it."""
    pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": f"{number}.png"}


def _ten(answer: str) -> list[str]:
    return [answer] * 6 + ["other"] * 4


def mme() -> pa.Table:
    rows = []
    for category in ("existence", "code_reasoning"):
        for number in range(2):
            for answer in ("Yes", "No"):
                rows.append(
                    {
                        "question_id": f"{category}/{number}.png",
                        "image": picture(number),
                        "question": f"Is there a {answer} dog? Please answer yes or no.",
                        "answer": answer,
                        "category": category,
                    }
                )
    return _table(rows, image=IMAGE)


def gqa() -> pa.Table:
    rows = [
        {"id": f"2{n}", "imageId": f"n{n % 2}", "question": "Is it red?", "answer": "yes",
         "fullAnswer": "Yes, it is.", "isBalanced": True}
        for n in range(4)
    ]  # fmt: skip
    return _table(rows)


def gqa_images() -> pa.Table:
    return _table([{"id": f"n{n}", "image": picture(n)} for n in range(3)], image=IMAGE)


def ai2d() -> pa.Table:
    rows = [
        {"question": "Which?", "options": ["leaf", "root", "stem", "bud"], "answer": str(n),
         "image": picture(n)}
        for n in range(3)
    ]  # fmt: skip
    return _table(rows, options=TEXTS, image=IMAGE)


def mmbench() -> pa.Table:
    rows = []
    questions = ((["cat", "dog", "cow", "pig"], "nan"), (["up", "down"], "a hint"))
    for turn in range(4):
        for number, (options, hint) in enumerate(questions):
            if turn < len(options):
                turned = [*options[turn:], *options[:turn]]
                cells = dict(zip("ABCD", [*turned, "nan", "nan"], strict=False))
                rows.append(
                    {
                        "index": number + turn * 1_000_000,
                        "question": "Which one?",
                        "hint": hint,
                        "answer": "ABCD"[turned.index(options[0])],
                        **cells,
                        "category": "c",
                        "image": picture(number),
                        "source": "s",
                        "L2-category": "l",
                        "comment": "nan",
                        "split": "dev",
                    }
                )
    return _table(rows, index=pa.int64(), image=IMAGE)


def mmmu() -> pa.Table:
    empty = {f"image_{n}": None for n in range(1, 8)}
    rows = [
        {**empty, "id": "validation_Art_Theory_1", "question": "Is <image 2> like <image 1>?",
         "options": "['<image 3>', \"it's\", 'no']", "answer": "B",
         "question_type": "multiple-choice", "image_1": picture(0), "image_2": picture(1),
         "image_3": picture(2)},
        {**empty, "id": "validation_Finance_2", "question": "How much in <image 1>?",
         "options": "[]", "answer": "['24/7', '3.429']", "question_type": "open",
         "image_1": picture(3)},
    ]  # fmt: skip
    return _table(rows, **{f"image_{n}": IMAGE for n in range(1, 8)})


def scienceqa() -> pa.Table:
    rows = [
        {"image": picture(n), "question": "Which?", "choices": ["a", "b", "c"][: 2 + n % 2],
         "answer": n % 2, "hint": "Look." if n else "", "subject": "natural science"}
        for n in range(3)
    ]  # fmt: skip
    return _table(rows, image=IMAGE, choices=TEXTS, answer=pa.int8())


def mathvista() -> pa.Table:
    base = {"choices": None, "unit": None, "precision": None, "metadata": {"grade": "high"}}
    rows = [
        {**base, "pid": "1", "question": "How far?", "decoded_image": picture(0), "answer": "1.2",
         "unit": "m", "precision": 1.0, "question_type": "free_form", "answer_type": "float",
         "metadata": {"grade": "high", "task": "figure question answering"}},
        {**base, "pid": "2", "question": "Which?", "decoded_image": picture(1), "answer": "8/11",
         "choices": ["3/11", "8/11", "6/11"], "question_type": "multi_choice",
         "answer_type": "text"},
        {**base, "pid": "3", "question": "How many?", "decoded_image": picture(1), "answer": "14",
         "question_type": "free_form", "answer_type": "integer"},
        {**base, "pid": "4", "question": "From, to?", "decoded_image": picture(1),
         "answer": "[0, 1]", "question_type": "free_form", "answer_type": "list"},
    ]  # fmt: skip
    return _table(rows, decoded_image=IMAGE, choices=TEXTS, precision=pa.float64())


def pope() -> pa.Table:
    rows = [
        {"id": str(n), "question_id": str(n % 2), "question": "Is there a dog in the image?",
         "answer": "yes" if n % 2 else "no", "image_source": f"COCO_{n}", "image": picture(n // 2),
         "category": ("adversarial", "popular")[n // 2]}
        for n in range(4)
    ]  # fmt: skip
    return _table(rows, image=IMAGE)


def chartqa() -> pa.Table:
    rows = [
        {"type": kind, "question": "What is the value?", "answer": "10.5", "image": picture(n)}
        for n, kind in enumerate(("human_test", "augmented_test"))
    ]
    return _table(rows, image=IMAGE)


def docvqa() -> pa.Table:
    rows = [
        {"questionId": str(49153 + n), "question": "What is the date?", "answers": ["1998", "98"],
         "question_types": ["form"], "image": picture(0), "docId": 14465 + n, "data_split": "val"}
        for n in range(2)
    ]  # fmt: skip
    return _table(rows, image=IMAGE, answers=TEXTS, docId=pa.int64())


def textvqa() -> pa.Table:
    rows = [
        {"image_id": "0", "question_id": 34602 + n, "question": "what does the IBM sign say?",
         "answers": _ten("nous les gosses"), "image": picture(n), "ocr_tokens": ["nous"]}
        for n in range(2)
    ]  # fmt: skip
    return _table(rows, image=IMAGE, answers=TEXTS, question_id=pa.int32())


def vizwiz() -> pa.Table:
    rows = [
        {"question_id": f"VizWiz_val_{n}.jpg", "image": picture(n), "question": "what is this?",
         "answers": _ten("unanswerable"), "category": "unanswerable"}
        for n in range(2)
    ]  # fmt: skip
    return _table(rows, image=IMAGE, answers=TEXTS)


def vqav2() -> pa.Table:
    answer = pa.struct(
        [("answer", pa.string()), ("answer_confidence", pa.string()), ("answer_id", pa.int64())]
    )
    rows = [
        {"question_type": "what", "multiple_choice_answer": "down", "question_id": 262148000 + n,
         "answers": [{"answer": text, "answer_confidence": "yes", "answer_id": number}
                     for number, text in enumerate(_ten("down"), start=1)],
         "image_id": 262148, "answer_type": "other", "question": "Where is he looking?",
         "image": picture(0)}
        for n in range(2)
    ]  # fmt: skip
    return _table(rows, image=IMAGE, answers=pa.list_(answer), question_id=pa.int64())


TABLES = {
    "mme": mme, "gqa": gqa, "ai2d": ai2d, "mmbench": mmbench, "mmmu": mmmu,
    "scienceqa": scienceqa, "mathvista": mathvista, "pope": pope, "chartqa": chartqa,
    "docvqa": docvqa, "textvqa": textvqa, "vizwiz": vizwiz, "vqav2": vqav2,
}  # fmt: skip


def write_all(folder: Path) -> Path:
    """The data of all benchmarks below a folder, as the hub's files are laid out."""
    places = {
        "mmbench": "MMBench/en/dev-00000-of-00001.parquet",
        "gqa": "gqa/testdev_balanced_instructions/testdev-00000-of-00001.parquet",
        "mmmu": "MMMU/data/validation-00000-of-00001.parquet",
        "vqav2": "vqav2.parquet",
    }
    for name, table in TABLES.items():
        file = folder / places.get(name, f"{name}/rows.parquet")
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(), file)
    images = folder / "gqa" / "testdev_balanced_images" / "testdev-00000-of-00001.parquet"
    images.parent.mkdir()
    pq.write_table(gqa_images(), images)
    # Splits and configs beside the one that is asked for.
    pq.write_table(mmbench().slice(0, 1), folder / "MMBench" / "en" / "test-00000-of-00001.parquet")
    (folder / "MMBench" / "cn").mkdir()
    pq.write_table(mmbench().slice(0, 1), folder / "MMBench" / "cn" / "dev-00000-of-00001.parquet")
    return folder


def _table(rows: list[dict], **types: pa.DataType) -> pa.Table:
    inferred = pa.Table.from_pylist(
        [{k: v for k, v in row.items() if k not in types} for row in rows]
    )
    fields = {field.name: field.type for field in inferred.schema} | types
    names = [name for name in rows[0] if name in fields]
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, fields[name]) for name in names]))
