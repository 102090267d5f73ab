"""The thirteen benchmarks' parsers and totals: golden vectors of lmms-eval, and their laws."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell import vtc

from vtc.errors import InputError
from vtc.evaluate import metrics
from vtc.evaluate.aggregate import aggregate, clustered, score_item
from vtc.evaluate.average import SETS, average, parse_sets
from vtc.evaluate.benchmarks import (
    ai2d,
    mathvista,
    mmbench,
    mmbench_last,
    mme,
    mmmu,
    mmmu_open,
    pope,
    scienceqa,
)
from vtc.evaluate.benchmarks.registry import SPECS
from vtc.evaluate.categories import by_category
from vtc.evaluate.metric import Truth
from vtc.evaluate.texts import levenshtein

CATS = ("cat", "dog", "a big dog")


@pytest.mark.parametrize(
    ("prediction", "parsed"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("No, it is not", "no"),
        ("Not sure", "no"),
        ("Nope", "no"),
        ("y", "yes"),
        ("", "other"),
        ("The answer is yes", "other"),
    ],
)
def test_mme_parse_golden(prediction, parsed):
    assert mme.parse(prediction) == parsed


@pytest.mark.parametrize(
    ("prediction", "right"),
    [("B", 1), ("B.", 1), ("B. liver", 1), ("(B)", 1), ("b", 1), ("The answer is B.", 0)],
)
def test_ai2d_golden(prediction, right):
    assert ai2d.score(prediction, Truth(["B"])).score == right
    assert ai2d.score_as_harness(prediction, Truth(["B"])).score == right


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        ("B", 1),
        ("b", 1),
        ("B.", 1),
        ("B. y", 1),
        ("(B)", 0),
        ("The answer is B", 0),
        ("B) y", 0),
        ("b. y", 0),
    ],
)
def test_scienceqa_golden(prediction, right):
    assert scienceqa.score(prediction, Truth(["B"])).score == right


@pytest.mark.parametrize(
    ("prediction", "parsed"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("B. dog", "B"),
        ("cat", "A"),
        ("A cat is B", "A"),
        ("b", ""),
    ],
)
def test_mmbench_golden(prediction, parsed):
    assert mmbench.parse(prediction, list(zip("ABC", CATS, strict=True))) == parsed


def test_mmbench_options_that_are_missing():
    truth = Truth(["A"], ["banana", "plum"], None, {"n_columns": 4})
    assert mmbench.score("banana", truth).score == 1
    assert mmbench.score_as_harness("banana", truth).score == 0
    # What is undecided goes to an extractor there, which reads the A of "DNA" too.
    assert [mmbench_last.last_letter(p, "ABCD") for p in ("DNA", "**B**", "b", "so C, or B x")] == [
        "A", "B", "", "B",
    ]  # fmt: skip
    assert mmbench.score_as_harness("DNA", truth).score == 1
    assert mmbench.score("DNA", truth).score == 0
    gap = Truth(["C"], ["cat", "", "dog"])
    assert mmbench.score("a dog", gap) == ("C", 1.0)


@pytest.mark.parametrize(
    ("prediction", "parsed"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("The answer is B", "B"),
        ("A or B", "B"),
        ("Answer: C", "C"),
        ("b", ""),
        ("NASA rover", "A"),
        ("it must surely be a cat then", "A"),
        # Of texts too the last one named counts, inside another option or not.
        ("it must surely be a big dog", "B"),
    ],
)
def test_mmmu_choice_golden(prediction, parsed):
    assert mmmu.parse_choice(prediction, [*CATS, "cow"]) == parsed


def test_mmmu_undecided_is_wrong_or_a_seeded_guess():
    truth = Truth(["A"], CATS, None, {"question_type": "multiple-choice"})
    assert mmmu.score("b", truth) == ("", 0.0)
    guesses = [mmmu.score_as_harness(f"b{n}", truth).parsed for n in range(60)]
    assert set(guesses) == {"A", "B", "C"}
    assert guesses == [mmmu.score_as_harness(f"b{n}", truth).parsed for n in range(60)]


@pytest.mark.parametrize(
    ("prediction", "found"),
    [
        ("The answer is 1,234.567", {1234.57, 1234.0, 234.57}),
        ("x = 3.14", {3.14}),
        ("An apple", {"an apple"}),
        ("x", {" x", "x "}),
    ],
)
def test_mmmu_open_golden(prediction, found):
    assert set(mmmu_open.parse_open(prediction)) == found


def test_mmmu_open_answers():
    truth = Truth(["24/7", "3.429"], (), None, {"question_type": "open"})
    assert mmmu.score("The answer is 3.43", truth).score == 1
    assert mmmu.score("It is 24/7.", truth).score == 1
    assert mmmu.score("3.5", truth).score == 0
    assert mmmu.score_as_harness("3.43", truth).score == 0


def about(question_type, answer_type, precision=None):
    return {"question_type": question_type, "answer_type": answer_type, "precision": precision}


@pytest.mark.parametrize(
    ("extraction", "kind", "precision", "normal"),
    [
        ("(B) 8/11", ("multi_choice", "text"), None, "8/11"),
        ("8/12", ("multi_choice", "text"), None, "8/11"),
        ("14.0", ("free_form", "integer"), None, "14"),
        ("14 apples", ("free_form", "integer"), None, None),
        ("1.234", ("free_form", "float"), 2, "1.23"),
        ("inf", ("free_form", "integer"), None, None),
        ("[1]", ("free_form", "list"), None, "[1]"),
    ],
)
def test_mathvista_normalise_golden(extraction, kind, precision, normal):
    truth = Truth([""], ("3/11", "8/11", "6/11"), None, about(*kind))
    assert mathvista.normalise(extraction, truth, precision) == normal


@pytest.mark.parametrize(
    ("prediction", "kind", "answer", "right", "harness"),
    [
        ("B", ("multi_choice", "text"), "8/11", 1, 0),
        ("b.", ("multi_choice", "text"), "8/11", 1, 0),
        ("The answer is (B).", ("multi_choice", "text"), "8/11", 1, 0),
        ("The answer is B", ("multi_choice", "text"), "8/11", 1, 0),
        ("8/11", ("multi_choice", "text"), "8/11", 1, 1),
        ("it is 8/11, I think", ("multi_choice", "text"), "8/11", 1, 0),
        # The harness takes what it did not read for the shortest option, here the first.
        ("", ("multi_choice", "text"), "3/11", 0, 1),
        ("14", ("free_form", "integer"), "14", 1, 1),
        ("14 apples", ("free_form", "integer"), "14", 1, 0),
        ("from 3 to 1,400", ("free_form", "integer"), "1400", 1, 0),
        ("none", ("free_form", "integer"), "14", 0, 0),
        ("1.23", ("free_form", "float", 1), "1.2", 1, 0),
        ("about 1.2 m", ("free_form", "float", 1), "1.2", 1, 0),
        ("the list [0,1]", ("free_form", "list"), "[0, 1]", 1, 0),
        ("9" * 5000, ("free_form", "integer"), "14", 0, 0),
    ],
)
def test_mathvista_by_rules(prediction, kind, answer, right, harness):
    truth = Truth([answer], ("3/11", "8/11", "6/11"), None, about(*kind))
    assert mathvista.score(prediction, truth).score == right
    assert mathvista.score_as_harness(prediction, truth).score == harness


def rows_of(name: str, cells, **more) -> list[dict]:
    """Predictions of one run; cells are (prediction, reference, image, more)."""
    spec = SPECS[name]
    base = {
        "run_id": "r", "backbone": "b", "n_params": 1, "compressor": "c", "visual_tokens": 1,
        "benchmark": name, "task": spec.task, "metric": spec.metric, "chance": 0.5, **more,
    }  # fmt: skip
    return [
        {**base, "item_id": str(n), "prediction": prediction, "references": [reference],
         "image_id": image, "choices": [], "category": None, "group": None, **extra}
        for n, (prediction, reference, image, extra) in enumerate(cells)
    ]  # fmt: skip


def total(rows, compat=False, **kwargs):
    [found] = aggregate([score_item(row, compat) for row in rows], compat, **kwargs)
    return found


def test_pope_golden():
    cells = [("yes", "yes"), ("No", "no"), ("yes", "no"), ("no", "yes")]
    rows = rows_of("pope", [(p, r, str(n), {}) for n, (p, r) in enumerate(cells)])
    assert total(rows)["score"] == total(rows, True)["score"] == 0.5
    dotted = [{**row, "prediction": f"{row['prediction']}."} for row in rows]
    assert total(dotted)["score"] == 0.5
    assert total(dotted, True)["score"] == 0
    assert total(dotted, True)["parser"] == "pope/1 (lmms-eval 0.7)"
    # An answer that is neither is no missed object to the harness.
    silent = [{**row, "prediction": "perhaps"} if n == 3 else row for n, row in enumerate(rows)]
    assert total(silent)["score"] == 0.5
    assert total(silent, True)["score"] == pytest.approx(2 / 3)
    broken = [{**rows[0], "fault": "image 0: missing"}, *rows[1:]]
    assert total(broken)["score"] == 0
    assert pope.parse("Yes, there is no doubt") == "yes"
    assert pope.parse("nobody") == "other"


def mme_rows(scores):
    """Pairs of scores, all of one category: predictions that make them."""
    cells = []
    for pair, both in enumerate(scores):
        for right in both:
            extra = {"category": "count", "group": f"count/{pair}"}
            cells.append(("Yes" if right else "No", "Yes", str(pair), extra))
    return rows_of("mme", cells)


def test_mme_golden():
    rows = mme_rows([(1, 1), (1, 0)])
    assert total(rows)["score"] == 125 / 200
    [part] = by_category(score_item(row) for row in rows)
    assert (part["category"], part["points"]) == ("count", 125)
    with pytest.raises(
        InputError, match=r"run r, benchmark mme: image count/1 has 1 of its 2 ques"
    ):
        total(rows[:3])
    assert total(rows[:3], incomplete=True)["score"] == 1
    with pytest.raises(InputError, match="item 0 has no group or no category"):
        total([{**row, "group": None} for row in rows])


def circle_rows(groups):
    return rows_of(
        "mmbench",
        [
            ("A" if right else "B", "A", str(number), {"group": str(number), "choices": ["x", "y"]})
            for number, group in enumerate(groups)
            for right in group
        ],
    )


def test_mmbench_circles_golden():
    assert total(circle_rows([(1, 1)]))["score"] == 1
    assert total(circle_rows([(1, 1), (1, 0)]))["score"] == 0.5
    with pytest.raises(InputError, match="question 1 has 1 of its 2 rotations"):
        total(circle_rows([(1, 1), (1,)]))


def test_mmbench_circles_have_as_many_rows_as_options_that_are_there():
    def circle(choices, n_rows):
        extra = {"group": "7", "choices": choices}
        return rows_of("mmbench", [("A", "A", "7", extra)] * n_rows)

    for choices, n_rows in (
        (["x", "y"], 2),
        (["x", "y", "z", "nan"], 3),
        (["x", "", "y", "None"], 3),
        (["x", "y", "z", "w"], 4),
    ):
        assert total(circle(choices, n_rows))["score"] == 1
        with pytest.raises(InputError, match=f"has {n_rows - 1} of its {n_rows} rotations"):
            total(circle(choices, n_rows - 1))
    # Of the whole split no row is missing: a short circle is then the data's own.
    shortest = circle_rows([(1,)] + [(1, 1)] * 2164)
    assert len(shortest) == SPECS["mmbench"].n_rows
    assert total(shortest)["score"] == 1


@pytest.mark.parametrize("name", ["mme", "pope", "mmbench"])
def test_standard_errors_are_those_of_many_draws_of_images(name):
    rng = random.Random(name)
    ability = [rng.random() ** 0.5 for _ in range(150)]
    if name == "pope":
        cells = [
            (rng.choice("yn") if rng.random() > skill else "yn"[n % 2], "yn"[n % 2], str(image), {})
            for image, skill in enumerate(ability)
            for n in range(6)
        ]
        say = {"y": "yes", "n": "no"}
        rows = rows_of(name, [(say[p], say[r], i, e) for p, r, i, e in cells])
    else:
        pairs = [tuple(int(rng.random() < skill) for _ in range(2)) for skill in ability]
        rows = mme_rows(pairs) if name == "mme" else circle_rows(pairs)
    scored = [score_item(row) for row in rows]
    found = total(rows)["stderr"]
    by_image: dict[str, list[dict]] = {}
    for row in scored:
        by_image.setdefault(row["image_id"], []).append(row)
    images = list(by_image)
    rule = metrics.METRICS[name].total
    draws = []
    for _ in range(300):
        drawn = []
        for copy, image in enumerate(rng.choices(images, k=len(images))):
            # A second copy of a pair is a pair of its own.
            drawn += [{**r, "group": f"{r['group']}#{copy}"} for r in by_image[image]]
        draws.append(rule(drawn).score)
    assert found == pytest.approx(statistics.stdev(draws), rel=0.15)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_totals_are_shares_whose_influences_cancel(pairs):
    for rows in (mme_rows(pairs), circle_rows(pairs)):
        found = metrics.METRICS[rows[0]["metric"]].total([score_item(row) for row in rows])
        assert 0 <= found.score <= 1
        assert sum(found.influences) == pytest.approx(0, abs=1e-9)
    every = all(a and b for a, b in pairs)
    assert (total(mme_rows(pairs))["score"] == pytest.approx(1)) == every


def test_one_cluster_has_no_standard_error():
    assert clustered([0.1, -0.1], ["i", "i"]) is None


SAID = "yes No A B. (C) cat dog nan inf 1,000 3.5 [1] = is so 50% . \n İ '"
WORDS = st.lists(st.sampled_from([*SAID.split(" "), ""]), max_size=9).map(" ".join)


@pytest.mark.parametrize("name", metrics.METRICS)
@given(prediction=st.one_of(WORDS, st.text(max_size=40)), kind=st.sampled_from(
    ["multi_choice text", "free_form integer", "free_form float", "free_form list", "open open"]
))  # fmt: skip
def test_any_text_gets_a_share_and_the_same_each_time(name, prediction, kind):
    question_type, answer_type = kind.split()
    facts = {"question_type": question_type, "answer_type": answer_type, "precision": 1}
    truth = Truth(["A"] * 10, CATS, "count", facts)
    metric = metrics.METRICS[name]
    for compat in (False, True):
        found = metric.scorer(compat)(prediction, truth)
        assert 0 <= found.score <= 1
        assert isinstance(found.parsed, str)
        assert metric.scorer(compat)(prediction, truth) == found


@given(st.text("abcé ", max_size=9), st.text("abcé ", max_size=9))
def test_levenshtein_is_that_of_the_table(a, b):
    above = list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        row = [i]
        for j, other in enumerate(b, start=1):
            row.append(min(above[j - 1] + (letter != other), above[j] + 1, row[j - 1] + 1))
        above = row
    assert levenshtein(a, b) == above[-1]


def scores_of(benchmarks, run="r", visual_tokens=1, **more):
    base = {"run_id": run, "backbone": "b", "n_params": 7 * 10**9, "visual_tokens": visual_tokens}
    base |= {"compressor": "c", "task": "t", "metric": "m", "n_items": 10, "chance": 0.25}
    return [
        {**base, "benchmark": name, "score": 0.1 * n, "stderr": 0.02, "parser": "p/1", **more}
        for n, name in enumerate(benchmarks, start=1)
    ]


def test_averages():
    rows = average(scores_of([*SETS["reasoning"], *SETS["ocr"], "vizwiz"]))
    assert [row["benchmark"] for row in rows] == [row["task"] for row in rows]
    assert rows[0]["error"] == pytest.approx(1 - sum(range(1, 10)) / 90)
    assert rows[1]["score"] == pytest.approx(1.05)
    assert rows[1]["stderr"] == pytest.approx(0.02 / 2**0.5)
    assert (rows[0]["n_items"], rows[0]["chance"]) == (90, pytest.approx(0.25))


def test_what_does_not_average():
    some = scores_of(SETS["reasoning"][2:])
    with pytest.raises(InputError, match=r"run r: the average 'reasoning' lacks mme, gqa; evalua"):
        average(some)
    [row] = average(some, incomplete=True)
    assert row["benchmark"] == "reasoning: ai2d, mmbench, mmmu, scienceqa, mathvista, pope, chartqa"
    with pytest.raises(InputError, match=r"no benchmark of reasoning or ocr is among mine; name a"):
        average(scores_of(["mine"]))
    [row] = average(scores_of(["mine", "other"]), parse_sets(["ours=mine, other"]))
    assert row["task"] == "ours"
    mixed = scores_of(["mine"]) + scores_of(["mine"], run="s", parser="p/1 (lmms-eval 0.7)")
    with pytest.raises(InputError, match=r"mine is scored by p/1 in run r, by p/1 \(lmms-eval 0.7"):
        average(mixed, {"x": ("mine",)})
    for text in ("x", "=a", "x=", "x=a,a"):
        with pytest.raises(InputError, match="write NAME=BENCHMARK"):
            parse_sets([text])


def test_a_law_reads_the_average_as_it_reads_the_benchmarks():
    from vtc.law.points import read_points

    rows = []
    for n, tokens in enumerate((1, 4, 16, 64)):
        run = scores_of(SETS["ocr"], run=f"r{n}", visual_tokens=tokens, task="ocr")
        rows += [{**row, "score": row["score"] + n / 10} for row in run]
    rows = [{**row, "error": 1 - row["score"]} for row in rows]
    [each] = read_points(rows, "scores")
    [mean] = read_points(average(rows), "averages")
    assert each.task == mean.task == "ocr"
    assert [p.error for p in each.points] == pytest.approx([p.error for p in mean.points])


@pytest.mark.parametrize("name", metrics.METRICS)
@pytest.mark.parametrize("text", ["9" * 50_000, "[ " * 20_000, "A b, 1.5 is so (B " * 3000, ""])
def test_absurd_predictions_take_no_absurd_time(name, text):
    import time

    kinds = (("free", "float"), ("multi_choice", "text"), ("open", "open"))
    start = time.process_time()
    for question_type, answer_type in kinds:
        facts = {"question_type": question_type, "answer_type": answer_type, "precision": 1}
        truth = Truth(["zebra"] * 10, ("zebra", "dog " * 20), "count", facts)
        for compat in (False, True):
            assert metrics.METRICS[name].scorer(compat)(text, truth).score in (0, 1)
    # Ten times what it takes here; the square of the length would be minutes.
    assert time.process_time() - start < 5


def test_a_table_of_predictions_is_scored_by_either_rule(tmp_path):

    from vtc.tables import specs
    from vtc.tables.read import read_rows
    from vtc.tables.write import write_rows

    cells = [("Yes.", "yes", "a", {}), ("no", "no", "b", {}), ("no", "yes", "c", {})]
    told = {"question": "?", "n_text_tokens": 1, "n_generated": 1, "prompt_sha": "0"}
    rows = [{**score_item(row), **told} for row in rows_of("pope", cells)]
    write_rows(rows, specs.PREDICTIONS, tmp_path / "p.parquet")
    for flags, score, parser in (
        ([], 2 / 3, "pope/1"),
        (["--compat", "lmms-eval"], 0, "pope/1 (lmms-eval 0.7)"),
    ):
        out = tmp_path / f"{len(flags)}.parquet"
        done = vtc("score", tmp_path / "p.parquet", "-o", out, *flags)
        assert done.returncode == 0, done.stderr
        [found] = read_rows(out, specs.SCORES).rows
        assert (found["score"], found["parser"]) == (pytest.approx(score), parser)
