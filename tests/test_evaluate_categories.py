"""Scores by category: parts of a benchmark, by its own metric, that no law takes for the whole."""

from pathlib import Path

import pytest
from benchmark_rows import write_all
from shell import vtc
from test_benchmarks_data import row_of
from test_cli_score import prediction

from vtc.errors import InputError
from vtc.evaluate.aggregate import aggregate, score_item
from vtc.evaluate.benchmarks.loading import Where, load
from vtc.evaluate.benchmarks.registry import SPECS
from vtc.evaluate.categories import by_category
from vtc.evaluate.looking import score_rows
from vtc.law.points import read_points, read_table
from vtc.tables import specs
from vtc.tables.read import read_rows
from vtc.tables.write import write_rows


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_all(tmp_path_factory.mktemp("data"))


def answered(name: str, data: Path, folder: Path) -> list[dict]:
    """Predictions of a benchmark, right in every other item."""
    benchmark, items = load(SPECS[name], Where(folder, data))
    texts = [item.references[0] if n % 2 else "?!" for n, item in enumerate(items)]
    return [
        score_item(row_of(item, benchmark, text)) for item, text in zip(items, texts, strict=True)
    ]


CATEGORIES = {
    "mme": ["existence", "code_reasoning"],
    "mmbench": ["c"],
    "mmmu": ["Art_Theory", "Finance"],
    "scienceqa": ["natural science"],
    "mathvista": ["figure question answering", "multi_choice", "free_form"],
    "pope": ["adversarial", "popular"],
    "chartqa": ["human", "augmented"],
    "vizwiz": ["unanswerable"],
    "vqav2": ["what"],
}


@pytest.mark.parametrize("name", SPECS)
def test_categories_of_every_benchmark_add_up(data, tmp_path, name):
    scored = answered(name, data, tmp_path)
    said = []
    if name not in CATEGORIES:
        with pytest.raises(InputError, match=f"no item of {name} has a category; name its column"):
            by_category(scored)
        return
    rows = by_category(scored, say=said.append)
    assert [row["category"] for row in rows] == CATEGORIES[name]
    assert said == []
    [whole] = aggregate(scored)
    assert sum(row["n_items"] for row in rows) == whole["n_items"]
    assert {row["benchmark"] for row in rows} == {name}
    if name == "mme":
        assert sum(row["points"] for row in rows) / 400 == pytest.approx(whole["score"])
    elif name not in ("mmbench", "pope"):
        total = sum(row["score"] * row["n_items"] for row in rows)
        assert total / whole["n_items"] == pytest.approx(whole["score"])
        assert {row["points"] for row in rows} == {None}


def test_a_category_is_scored_by_the_benchmarks_own_metric():
    def pope(n, category, said, there):
        about = {"benchmark": "pope", "metric": "pope", "category": category}
        return score_item(prediction(n, said, references=[there], **about))

    rows = by_category(
        [
            pope(0, "random", "yes", "yes"), pope(1, "random", "yes", "no"),
            pope(2, "popular", "no", "no"), pope(3, "popular", "yes", "yes"),
            pope(4, None, "yes", "yes"),
        ],
        say=(said := []).append,
    )  # fmt: skip
    assert [(row["category"], row["score"]) for row in rows] == [
        ("random", pytest.approx(2 / 3)), ("popular", 1.0),
    ]  # fmt: skip
    assert said == ["pope: 1 item has no category and is left out"]
    pair = {"benchmark": "mme", "metric": "mme", "category": "count", "group": "count/1"}
    single = score_item(prediction(0, "yes", **pair))
    with pytest.raises(InputError, match=r"benchmark mme, category count: image count/1 has 1 of"):
        by_category([single])
    [row] = by_category([single], incomplete=True)
    assert row["points"] == 200


def test_from_the_shell_and_never_into_a_law(tmp_path):
    rows = [
        prediction(n, "yes" if n < 3 else "no", run_id=run, category="ab"[n % 2])
        for run in ("r", "s")
        for n in range(6)
    ]
    rows.append(prediction(0, "yes", benchmark="other"))
    write_rows(rows, specs.PREDICTIONS, tmp_path / "p.parquet")
    given = ("score", tmp_path / "p.parquet", "--by", "category")
    shown = vtc(*given)
    assert shown.stdout.splitlines()[0].split() == [
        "run_id", "backbone", "n_params", "visual_tokens", "benchmark", "category", "score",
        "stderr", "n_items",
    ]  # fmt: skip
    assert [line.split()[5:7] for line in shown.stdout.splitlines()[1:]] == [
        ["a", "0.6667"], ["b", "0.3333"],
    ] * 2  # fmt: skip
    assert shown.stderr == "other: 1 item has no category and is left out\n"
    refused = vtc(*given, "--average")
    assert refused.returncode == 2
    assert "--by gives a row a category, --average a row a set" in refused.stderr
    found = by_category(score_item(row) for row in rows)
    for name in ("c.parquet", "c.csv", "c.jsonl"):
        write_rows(found, specs.CATEGORIES, tmp_path / name)
        assert read_rows(tmp_path / name, specs.CATEGORIES).rows[0]["points"] is None
        with pytest.raises(InputError, match="categor"):
            read_points(read_table(str(tmp_path / name)), name)
        with pytest.raises(InputError, match="found categories"):
            score_rows([str(tmp_path / name)], [], [])
