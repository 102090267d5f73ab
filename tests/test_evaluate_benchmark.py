"""Benchmarks as TOML files: formats of rows, prompts, filters, and every fault by place."""

import json
from pathlib import Path

import pytest

from vtc.errors import InputError
from vtc.evaluate.benchmark import distinct, read_benchmark
from vtc.evaluate.chance import MIN_GROUP, chance
from vtc.evaluate.items import Item, read_items
from vtc.tables.spec import Column, Table
from vtc.tables.write import write_rows

ROWS = [
    {"qid": 7, "picture": "a.png", "split": "test", "ask": "colour?", "answers": ["red"]},
    {"qid": 8, "picture": "b.png", "split": "train", "ask": "colour?", "answers": ["blue"]},
    {"qid": 9, "picture": "b.png", "split": "test", "ask": "shape?", "answers": ["box", "cube"]},
]
SPEC = Table(
    "rows",
    1,
    "rows of a benchmark",
    (
        Column("qid", "int", "id"),
        Column("picture", "string", "image"),
        Column("split", "string", "split"),
        Column("ask", "string", "question"),
        Column("answers", "list<string>", "answers"),
    ),
)
TOML = """
name = "colours"
task = "reasoning"
rows = "{rows}"
images = "pictures"
metric = "exact_match"
prompt = "{{question}} Answer {{split}} {{in one}} word."
filter = {{ split = "test" }}
[columns]
id = "qid"
image = "picture"
question = "ask"
answers = "answers"
"""


def write(folder: Path, rows: str = "rows.json", toml: str = TOML) -> Path:
    (folder / "pictures").mkdir(exist_ok=True)
    path = folder / "colours.toml"
    path.write_text(toml.format(rows=rows))
    return path


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv", "rows.parquet"])
def test_rows_of_every_format_become_the_same_items(tmp_path, name):
    write_rows(ROWS, SPEC, tmp_path / name)
    items = read_items(read_benchmark(write(tmp_path, name)))
    assert items == [
        Item("7", ("a.png",), "colour?", "colour? Answer test {in one} word.", ["red"]),
        Item("9", ("b.png",), "shape?", "shape? Answer test {in one} word.", ["box", "cube"]),
    ]


def test_a_list_of_lists_and_an_image_template(tmp_path):
    (tmp_path / "q.json").write_text('[["what?", "yes", 0], ["<image>\\nwhat?", "no", 12]]')
    toml = """
name = "lists"
task = "ocr"
rows = "q.json"
metric = "anls"
fields = ["question", "answer", "image_id"]
max_new_tokens = 4
[columns]
image = "test/{image_id}.png"
answers = "answer"
"""
    (tmp_path / "b.toml").write_text(toml)
    benchmark = read_benchmark(tmp_path / "b.toml", images=tmp_path)
    assert (benchmark.max_new_tokens, benchmark.images) == (4, tmp_path)
    items = read_items(benchmark)
    assert items[1] == Item("1", ("test/12.png",), "what?", "what?", ["no"])
    assert [item.item_id for item in read_items(benchmark, limit=1)] == ["0"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('metric = "exact_match"', "", "'metric' is missing"),
        ('metric = "exact_match"', 'metric = "bleu"', "no metric 'bleu'; choose from exact_match"),
        ('metric = "exact_match"', 'metric = "vqa"', "1 answers, but metric vqa needs at least 4"),
        ('task = "reasoning"', 'task = "maths"', "task 'maths' is none of reasoning, ocr, general"),
        ('task = "reasoning"', "task = 3", "'task' must be str, not 3"),
        ('name = "colours"', 'name = "c"\ncolor = 1', "unknown key 'color'"),
        ('name = "colours"', "name = ", "is not valid TOML"),
        ('id = "qid"', 'id = "split"', "id 'test' stands twice in column 'split'"),
        ('id = "qid"', 'key = "qid"', r"\[columns\] may name id, image, question and answers"),
        ('answers = "answers"', 'answers = "gold"', "row 0: no column 'gold'; it has qid, picture"),
        ('images = "pictures"', 'images = "nowhere"', "image root .*nowhere is no folder"),
        ('split = "test"', 'split = "dev"', "no row of .*rows.json passes its filter"),
        ("{{split}}", "{{hint}}", "row 0: column 'hint' of the template is missing"),
    ],
)
def test_faults_are_named_by_file_and_key(tmp_path, old, new, message):
    write_rows(ROWS, SPEC, tmp_path / "rows.json")
    assert old in TOML
    with pytest.raises(InputError, match=message):
        read_items(read_benchmark(write(tmp_path, toml=TOML.replace(old, new))))


def test_missing_files_and_broken_rows(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml does not exist"):
        read_benchmark(tmp_path / "none.toml")
    path = write(tmp_path)
    with pytest.raises(InputError, match=r"rows\.json does not exist"):
        read_items(read_benchmark(path))
    (tmp_path / "rows.json").write_text(json.dumps(ROWS)[:-30])
    with pytest.raises(InputError, match="row 2: broken JSON"):
        read_items(read_benchmark(path))
    (tmp_path / "rows.json").write_text(json.dumps([{**ROWS[0], "ask": " "}]))
    with pytest.raises(InputError, match="row 0, column 'ask': the question is empty"):
        read_items(read_benchmark(path))


def test_two_benchmarks_of_one_name_are_refused(tmp_path):
    write_rows(ROWS, SPEC, tmp_path / "rows.json")
    benchmark = read_benchmark(write(tmp_path))
    with pytest.raises(InputError, match="are both 'colours'"):
        distinct([benchmark, read_benchmark(benchmark.source)])


def test_chance_answers_each_question_text_by_its_best_constant():
    def items(question, answers):
        return [Item(f"{question}{n}", (), question, question, [a]) for n, a in enumerate(answers)]

    often = items("red?", ["yes"] * 15 + ["no"] * (MIN_GROUP - 15))
    assert chance(often, "exact_match") == 15 / MIN_GROUP
    # Questions asked once are pooled: answering each by its own answer would be no baseline.
    rare = [item for n in range(10) for item in items(f"what is {n}?", ["yes" if n < 4 else "no"])]
    assert chance(rare, "exact_match") == 0.6
    assert chance(often + rare, "exact_match") == (15 + 6) / (MIN_GROUP + 10)


DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not here")
def test_real_rows_are_read_where_they_stand(tmp_path):
    common = f'images = "{DATA}/SET"\nmetric = "exact_match"\n'
    easy = (
        f'name = "easy-vqa"\ntask = "reasoning"\nrows = "{DATA}/easy_vqa/test/questions.json"\n'
        f"{common}".replace("SET", "easy_vqa")
        + 'fields = ["question", "answer", "image_id"]\n'
        '[columns]\nimage = "test/images/{image_id}.png"\nanswers = "answer"\n'
    )
    lines = (
        f'name = "sroie"\ntask = "ocr"\nrows = "{DATA}/sroie_lines/lines.jsonl"\n{common}'.replace(
            "SET", "sroie_lines"
        )
        + 'filter = { split = "test" }\n'
        '[columns]\nimage = "image"\nanswers = "answer"\n'
    )
    found = {}
    for text in (easy, lines):
        (tmp_path / "b.toml").write_text(text)
        benchmark = read_benchmark(tmp_path / "b.toml")
        items = read_items(benchmark)
        assert (benchmark.images / items[-1].images[0]).is_file()
        found[benchmark.name] = (len(items), round(chance(items, "exact_match"), 3))
    # The data's own notes: blind .670 (fitted on the training questions) and .019.
    assert found == {"easy-vqa": (9673, 0.678), "sroie": (809, 0.027)}
