"""Metrics against golden vectors of the field's reference harness (lmms-eval 0.7), and laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtc.errors import InputError
from vtc.evaluate import metrics, texts
from vtc.evaluate.answers import normalise

TEXTS = st.text(max_size=20)
REFERENCES = st.lists(TEXTS, min_size=1, max_size=10)


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [("yes.", "yes", 1), ("the left", "left", 0), ("t-shirt", "tshirt", 1), ("two", "2", 0)],
)
def test_exact_match_golden(prediction, reference, score):
    assert texts.exact_match(prediction, [reference]).score == score


def test_exact_match_of_punctuation_alone():
    assert texts.exact_match("", ["-"]).score == 0
    assert texts.exact_match(" - ", ["-"]).score == 1


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("10", "10.5", True),
        ("9.97", "10.5", False),
        ("50%", "0.5", True),
        ("50", "50%", False),
        ("0", "0", True),
        ("0.0", "0", False),
        ("1,000", "1000", False),
        ("2010", "2009", True),
        ("Yes", "yes", True),
        ("-10", "-10.4", True),
        ("nan", "nan", True),
    ],
)
def test_relaxed_golden(prediction, reference, right):
    assert texts.relaxed(prediction, [reference]).score == right


@pytest.mark.parametrize(
    ("references", "prediction", "score"),
    [
        (["Paris"], "paris", 1.0),
        (["1998"], "1999", 0.75),
        (["ab"], "a", 0.5),
        (["abc"], "xyz", 0.0),
        (["University of California", "UC"], "uc", 1.0),
        ([""], "", 1.0),
    ],
)
def test_anls_golden(references, prediction, score):
    assert texts.anls(prediction, references).score == score


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The two dogs.", "2 dogs"),
        ("1,000", "1000"),
        ("top-left", "top left"),
        ("U.S.A.", "usa"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("A, B", "b"),
        ("it's a dog", "it 's dog"),
        ("3.", "3"),
        ("a.b", "ab"),
        ("12:30", "12:30"),
        ("theyd've", "they'd've"),
        ("twas", "'twas"),
    ],
)
def test_vqa_normaliser_golden(answer, normal):
    assert normalise(answer) == normal


@pytest.mark.parametrize(("agree", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1)])
def test_vqa_agreement(agree, score):
    references = ["The Dog."] * agree + [f"cat{n}" for n in range(10 - agree)]
    assert texts.vqa("dog", references).score == pytest.approx(score)


@pytest.mark.parametrize("name", metrics.METRICS)
@given(prediction=TEXTS, references=REFERENCES)
def test_a_score_is_a_share_and_the_order_of_references_is_nothing(name, prediction, references):
    score = metrics.METRICS[name].score
    found = score(prediction, metrics.Truth(references))
    assert 0 <= found.score <= 1
    assert found == score(prediction, metrics.Truth(references[::-1]))


@pytest.mark.parametrize("name", ["exact_match", "relaxed", "anls", "vqa", "vqav2"])
@given(answer=TEXTS)
def test_the_reference_itself_is_right(name, answer):
    metric = metrics.METRICS[name]
    assert metric.score(answer, metrics.Truth([answer] * metric.min_references)).score == 1


@pytest.mark.parametrize("name", ["exact_match", "relaxed", "anls"])
@given(prediction=TEXTS, references=REFERENCES, more=TEXTS)
def test_one_more_reference_never_lowers_the_score(name, prediction, references, more):
    def score(*accepted):
        return metrics.METRICS[name].score(prediction, metrics.Truth(accepted)).score

    assert score(*references, more) >= score(*references)


@given(TEXTS, TEXTS, TEXTS)
def test_levenshtein_is_a_distance(a, b, c):
    distance = texts.levenshtein
    assert distance(a, b) == distance(b, a) <= max(len(a), len(b))
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)


def test_an_unknown_metric_names_the_choices():
    with pytest.raises(InputError, match=r"x\.toml: no metric 'f1'; choose from exact_match"):
        metrics.get("f1", "x.toml")


def test_relaxed_divides_as_its_definition_does():
    # |14.805 - 14.1| / 14.1 is below .05 in floating point, |14.805 - 14.1| above .05 * 14.1.
    want = abs(14.805 - 14.1) / 14.1 <= 0.05
    assert want != (abs(14.805 - 14.1) <= 0.05 * 14.1)
    assert (
        bool(metrics.get("relaxed", "test").score("14.805", metrics.Truth(["14.1"])).score) == want
    )
