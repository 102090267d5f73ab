"""Scores of one benchmark over different numbers of items are said to be so."""

from vtc.evaluate.uneven import uneven


def row(run: str, n_items: object, benchmark: str = "gqa") -> dict:
    return {"run_id": run, "benchmark": benchmark, "n_items": n_items}


def test_a_benchmark_with_other_items_is_named():
    rows = [row("a", 1024), row("b", 1024), row("c", 5), row("c", 7, "pope")]
    assert list(uneven(rows)) == [
        "gqa: run c has 5 items, others up to 1024; scores over different items are not to be "
        "compared"
    ]


def test_equal_or_unknown_numbers_are_passed_over():
    assert not list(uneven([row("a", 9), row("b", "9"), row("c", None), {"visual_tokens": 1}]))
