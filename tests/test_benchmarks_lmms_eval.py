"""Scores side by side with lmms-eval's own functions, on random and adversarial predictions.

For developers: skips where lmms-eval is not at hand (see lmms_eval_oracle). Its default mode must
agree wherever docs/benchmarks.md states no deviation, --compat lmms-eval everywhere.
VTC_FUZZ is the number of predictions a metric (default 400).
"""

import contextlib
import io
import os
import random

import lmms_eval_oracle as oracle
import pytest

from vtc.evaluate import metrics, texts
from vtc.evaluate.benchmarks import (
    mathvista,
    mmbench,
    mmbench_last,
    mme,
    mmmu,
    mmmu_open,
    pope,
    scienceqa,
)
from vtc.evaluate.metric import Truth

pytestmark = pytest.mark.skipif(
    oracle.package() is None, reason="lmms-eval is not installed (pip install --no-deps lmms-eval)"
)
N = int(os.environ.get("VTC_FUZZ", "400"))
SAID = """
yes no Yes No NO not y n Y N nope yesterday a an the A B C D E F (A) (B) (C) A. B. C, D: E) (B). :A
:B. none one two ten zero 1 2 3.5 10 1,000 1,234.567 50% % 0 0.0 -3 1e5 nan inf -inf NaN 1_000 .5
5. 3..4 U.S.A. a.b dont don't it's its 's cat dog big banana NASA rover = is so thus therefore final
answer result could be The the answer is: option [0, 1] [1] 8/11 cm unanswerable Paris paris 1998
1999 top-left t-shirt ? ! , . ; : ' " / \\ @ # $ & * + < > ` ~ yall somebody'd shouldnt've twas
whats 12:30 İ ß ſ ǅ é １２ ２ ٣
"""
WORDS = ("\u00a0", "\u2003", "", *SAID.split())
JOINS = (" ", " ", " ", "", "\n", "\t", ". ", ", ", "-", "\n\n")


def text(rng: random.Random, *likely: str) -> str:
    """A text of a few words, among them the likely ones, joined anyhow; often only one of them."""
    if likely and rng.random() < 0.3:
        one = rng.choice(likely)
        return rng.choice(
            [one, one.upper(), one.lower(), f"{one}.", f" {one}", f"({one})", f"{one},"]
        )
    pool = [*WORDS, *likely * 4]
    out = rng.choice(pool)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3, 6, 40))):
        out += rng.choice(JOINS) + rng.choice(pool)
    if rng.random() < 0.1:
        at = rng.randrange(len(out) + 1)
        out = out[:at] + chr(rng.choice((*range(32, 127), 0x130, 0xDF, 0x660, 0x2028))) + out[at:]
    return out


def cases(seed: str, make):
    rng = random.Random(seed)
    for _ in range(N):
        yield make(rng)


def agree(pairs) -> None:
    """Every pair (ours, theirs, input) is equal; the message shows the first that is not."""
    wrong = [pair for pair in pairs if pair[0] != pair[1]]
    assert not wrong, f"{len(wrong)} of {N} differ; the first: {wrong[:5]}"


def load(*names: str):
    return oracle.load(*names)


def ours(name: str, prediction: str, truth: Truth, compat: bool) -> float:
    return metrics.METRICS[name].scorer(compat)(prediction, truth).score


def test_mme():
    [theirs] = load("tasks.mme.utils")
    agree(
        (mme.parse(p), theirs.parse_pred_ans(p), p)
        for p in cases("mme", lambda rng: text(rng, "yes", "no"))
    )


def test_exact_match():
    [theirs] = load("api.metrics")

    def one(pair, compat):
        prediction, gold = pair
        found = theirs.exact_match_hf_evaluate(
            [prediction], [gold], ignore_case=True, ignore_punctuation=True
        )["exact_match"]
        return ours("exact_match", prediction, Truth([gold]), compat), float(found), pair

    pairs = list(cases("gqa", lambda rng: (text(rng, "t-shirt", "left"), text(rng, "tshirt"))))
    pairs += [(text(random.Random(n), gold), gold) for n, (_, gold) in enumerate(pairs)]
    agree(one(pair, True) for pair in pairs)
    # Their arrays cut "İ", which grows in lower case; texts of marks alone are all equal to them.
    plain = [p for p in pairs if all(x.strip() == x and any(map(str.isalnum, x)) for x in p)]
    plain = [p for p in plain if "İ" not in "".join(p)]
    agree(one(pair, False) for pair in plain)


def test_ai2d():
    metric, theirs = load("api.metrics", "tasks.ai2d.utils")
    found = theirs.MultiChoiceRegexFilter()

    def one(case):
        prediction, gold = case
        doc = {"question": "?", "options": ["a", "b", "c", "d"], "answer": "1"}
        filtered = found.apply([[prediction]], [doc])
        want = metric.exact_match_hf_evaluate(
            [filtered], [gold], ignore_case=True, ignore_punctuation=True
        )["exact_match"]
        return ours("ai2d", prediction, Truth([gold]), True), float(want), case

    agree(map(one, cases("ai2d", lambda rng: (text(rng, *"ABCD"), rng.choice("ABCD")))))


def test_scienceqa():
    [theirs] = load("tasks.scienceqa.utils")

    def one(case):
        prediction, number = case
        doc = {"choices": list("wxyz"), "answer": number, "question": "?", "hint": ""}
        want = theirs.sqa_process_results(doc, [prediction])["exact_match"]
        gold = "ABCD"[number]
        return ours("scienceqa", prediction, Truth([gold]), False), float(want), case

    agree(map(one, cases("sqa", lambda rng: (text(rng, *"ABCD"), rng.randrange(4)))))
    assert scienceqa.parse("B. y") == "B"


def test_pope():
    [theirs] = load("tasks.pope.utils")

    def one(rng):
        prediction, gold = text(rng, "yes", "no"), rng.choice(("yes", "no"))
        doc = {"question_id": 1, "answer": gold, "category": "random", "question": "?"}
        found = theirs.pope_process_results(doc, [prediction])
        row = {"references": [gold], "parsed": pope.parse_as_harness(prediction)}
        return row, found

    rows = list(cases("pope", one))
    for row, found in rows:
        want = float(found["pope_accuracy"]["score"])
        assert float(row["parsed"] in row["references"]) == want
    assert pope.total_as_harness([row for row, _ in rows]).score == pytest.approx(
        theirs.pope_aggregate_f1_score([found["pope_f1_score"] for _, found in rows])
    )


def test_chartqa():
    [theirs] = load("tasks.chartqa.utils")
    pairs = list(cases("chartqa", lambda rng: (text(rng, "10", "50%"), text(rng, "10.5", "0.5"))))
    pairs += [(text(random.Random(n), gold), gold) for n, (_, gold) in enumerate(pairs)]
    agree(
        (ours("relaxed", p, Truth([g]), True), float(theirs.relaxed_correctness(p, g)), (p, g))
        for p, g in pairs
    )
    finite = [
        pair
        for pair in pairs
        if all(
            x.strip() == x and not {"nan", "inf"} & set(x.lower().strip("+-%").split())
            for x in pair
        )
    ]
    agree(
        (ours("relaxed", p, Truth([g]), False), float(theirs.relaxed_correctness(p, g)), (p, g))
        for p, g in finite
    )


def test_anls():
    [theirs] = load("api.metrics")

    def one(rng):
        golds = [text(rng, "University of California") for _ in range(rng.choice((1, 1, 2, 5)))]
        return text(rng, *golds), golds

    agree(
        (
            round(ours("anls", p, Truth(g), False), 12),
            round(float(theirs.anls(g, [p])["anls"]), 12),
            (p, g),
        )
        for p, g in cases("anls", one)
    )
    agree(
        (texts.levenshtein(p, g), theirs.levenshtein_distance(p, g), (p, g))
        for p, g in cases("levenshtein", lambda rng: (text(rng), text(rng)))
    )


def vqa_case(rng):
    golds = [text(rng, "yes", "2 dogs") for _ in range(rng.choice((1, 2, 4)))]
    answers = [rng.choice(golds) for _ in range(10)]
    return text(rng, *golds), answers


@pytest.mark.parametrize("name", ["textvqa", "vizwiz_vqa"])
def test_vqa(name):
    [theirs] = load(f"tasks.{name}.utils")

    def one(case):
        prediction, answers = case
        doc = {"question_id": 1, "answers": list(answers), "question": "?", "category": "other"}
        with contextlib.redirect_stdout(io.StringIO()):
            found = theirs.__dict__[f"{name}_process_results"](doc, [prediction])
        return (
            round(ours("vqa", prediction, Truth(answers), False), 12),
            round(float(found["exact_match"]), 12),
            case,
        )

    agree(map(one, cases(name, vqa_case)))


def test_vqav2():
    [theirs] = load("tasks.vqav2.utils")

    def one(case):
        prediction, answers = case
        dicts = [
            {"answer": answer, "answer_confidence": "yes", "answer_id": number}
            for number, answer in enumerate(answers, start=1)
        ]
        doc = {"question_id": 1, "answers": dicts, "question": "?", "question_type": "a",
               "answer_type": "other", "multiple_choice_answer": answers[0]}  # fmt: skip
        found = theirs.vqav2_process_results(doc, [prediction])
        return (
            round(ours("vqav2", prediction, Truth(answers), False), 12),
            round(float(found["exact_match"]), 12),
            case,
        )

    agree(map(one, cases("vqav2", vqa_case)))


def test_normaliser_knows_every_contraction():
    [theirs] = load("tasks._task_utils.vqa_eval_metric")
    processor = theirs.EvalAIAnswerProcessor()
    words = {*processor.CONTRACTIONS, *processor.CONTRACTIONS.values(), *processor.NUMBER_MAP}
    agree((texts.normalise(word), processor(word), word) for word in words)


def choices_of(rng):
    pool = ("cat", "dog", "a big dog", "8/11", "nan", "12", "banana", "the answer", "")
    return rng.sample(pool, rng.choice((2, 3, 4)))


def test_mmbench():
    [theirs] = load("tasks.mmbench.mmbench_evals")
    judge = theirs.MMBench_Evaluator()

    def one(rng):
        choices = choices_of(rng)
        options = dict(zip("ABCDE", choices, strict=False))
        prediction = text(rng, *choices, *"ABCD")
        found = judge.can_infer(prediction, dict(options)) or ""
        return mmbench.parse(prediction, list(options.items())), found, (prediction, options)

    agree(cases("mmbench", one))


def test_mmbench_without_a_judge():
    """Of 0.7.2 and later: what is undecided goes to an extractor (0.7 and 0.7.1 leave it)."""
    import pandas as pd

    if not (oracle.package() / "tasks" / "_task_utils" / "mcq_extract.py").is_file():
        pytest.skip("this lmms-eval leaves undecided answers undecided")
    extractor, theirs = load("tasks._task_utils.mcq_extract", "tasks.mmbench.mmbench_evals")
    letters = list("ABCD")
    agree(
        (mmbench_last.last_letter(p, letters), extractor.extract_mcq_answer(p, letters), p)
        for p in cases("last", lambda rng: text(rng, "(A)", "B.", "answer is", "i pick", "答:"))
    )
    judge = theirs.MMBench_Evaluator()

    def one(rng):
        choices = [choice or "x" for choice in choices_of(rng)]
        cells = dict(zip(letters, [*choices, "nan", "nan"], strict=False))
        prediction = text(rng, *choices, *letters).strip()
        row = {"index": 5, "question": "?", "answer": "A", "prediction": prediction, "hint": "",
               "category": "c", "l2-category": "l", "split": "dev", **cells}  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()), oracle.empty_modules():
            found = judge.eval_sub_data(pd.DataFrame([row]), {5: "A"}, static_only=True)
        truth = Truth(["A"], choices, None, {"n_columns": 4})
        want = found[0] if isinstance(found, tuple) else found
        return ours("mmbench", prediction, truth, True), float(want), (prediction, choices)

    agree(list(cases("static", one))[:1000])


def test_mmmu_choice():
    [theirs] = load("tasks._task_utils.mmmu_mcq_utils")

    def one(rng):
        choices = choices_of(rng)
        options = dict(zip("ABCDE", choices, strict=False))
        prediction = text(rng, *choices, *"ABCD")
        letters = list(options)
        found = {
            theirs.parse_mmmu_multi_choice_response(prediction, letters, options) for _ in range(40)
        }
        # Forty equal draws are no guess.
        want = found.pop() if len(found) == 1 else ""
        return mmmu.parse_choice(prediction, choices), want, (prediction, choices)

    agree(cases("mmmu", one))


def test_mmmu_open():
    [theirs] = load("tasks.mmmu.utils")

    def one(rng):
        gold = text(rng, "3.43", "apple", "x")
        prediction = text(rng, gold, "is", "answer")
        parsed = theirs.parse_open_response(prediction)
        want = theirs.eval_open(gold, parsed)
        found = mmmu_open.parse_open(prediction)
        key = sorted(map(repr, set(found)))
        return (
            (key, mmmu_open.is_right(found, [gold])),
            (sorted(map(repr, set(parsed))), want),
            (prediction, gold),
        )

    agree(cases("open", one))


def test_mathvista():
    [theirs] = load("tasks.mathvista.mathvista_evals")
    judge = theirs.MathVistaEvaluator()

    def one(rng):
        choices = choices_of(rng)
        kind, answer_type = rng.choice(
            (("multi_choice", "text"), ("free_form", "integer"), ("free_form", "float"),
             ("free_form", "list"))
        )  # fmt: skip
        precision = rng.choice((1, 2))
        extraction = text(rng, *choices, "14", "1.234")
        want = judge.normalize_extracted_answer(extraction, choices, kind, answer_type, precision)
        about = {"question_type": kind, "answer_type": answer_type}
        found = mathvista.normalise(extraction, Truth(["1"], choices, None, about), precision)
        if kind == "multi_choice" and not choices:
            return None, None, ""
        return found, want, (extraction, choices, kind, answer_type)

    agree(cases("mathvista", one))


def test_mathvista_without_a_judge():
    [theirs] = load("tasks.mathvista.mathvista_evals")
    judge = theirs.MathVistaEvaluator()
    judge.get_chat_response = lambda *args, **kwargs: ""

    def one(rng):
        choices = choices_of(rng)
        kind, answer_type = rng.choice(
            (("multi_choice", "text"), ("multi_choice", "integer"), ("free_form", "integer"),
             ("free_form", "float"), ("free_form", "list"))
        )  # fmt: skip
        prediction = text(rng, *choices, "14", "1.2").strip()
        answer = rng.choice(choices) if kind == "multi_choice" else rng.choice(("14", "1.2"))
        problem = {"question_type": kind, "answer_type": answer_type, "query": "?",
                   "choices": choices}  # fmt: skip
        extraction = judge.extract_answer(prediction, problem, False)
        # The data set holds the precision as a float, which is what goes wrong.
        found = judge.normalize_extracted_answer(extraction, choices, kind, answer_type, 1.0)
        want = float(judge.safe_equal(found, answer))
        about = {"question_type": kind, "answer_type": answer_type, "precision": 1}
        truth = Truth([answer], choices, None, about)
        return ours("mathvista", prediction, truth, True), want, (prediction, problem, answer)

    agree(cases("mathvista bare", one))


def test_mme_total_and_mmbench_circles():
    import pandas as pd

    their_mme, their_circle = load("tasks.mme.utils", "tasks.mmbench.mmbench_evals")
    rng = random.Random("totals")
    rows, results = [], []
    for category in (*mme.PERCEPTION, *mme.COGNITION):
        for pair in range(rng.randrange(1, 6)):
            for _ in range(2):
                score = float(rng.random() < 0.6)
                rows.append({"category": category, "group": f"{category}/{pair}", "score": score,
                             "item_id": str(len(rows))})  # fmt: skip
                results.append({"question_id": pair, "category": category, "score": score})
    groups = {"perception": mme.PERCEPTION, "cognition": mme.COGNITION}
    points = sum(
        their_mme.mme_aggregate_results([r for r in results if r["category"] in group])
        for group in groups.values()
    )
    assert mme.total(rows).score == pytest.approx(points / 2800)
    judge = their_circle.MMBench_Evaluator()
    rows, table = [], []
    for question in range(60):
        for turn in range(3):
            prediction = "B" if rng.random() < 0.8 else "A"
            index = question + turn * 1_000_000
            table.append({"index": index, "question": "?", "answer": "B", "prediction": prediction,
                          "A": "cat", "B": "dog", "C": "cow", "D": "pig", "hint": "",
                          "category": "c", "l2-category": "l", "split": "dev"})  # fmt: skip
            rows.append({"group": str(question), "score": float(prediction == "B"),
                         "item_id": str(index)})  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        found = judge.eval_result(pd.DataFrame(table), eval_method="static")
    overall = found[0] if isinstance(found, tuple) else found
    assert mmbench.total(rows).score == pytest.approx(float(overall))
