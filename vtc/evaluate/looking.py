"""Looking at answers: which predictions to show, and each as a few lines of text."""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from vtc.errors import InputError
from vtc.evaluate.aggregate import aggregate
from vtc.tables import specs
from vtc.tables.read import read_rows, title

WIDTH = 80
RIGHT_FROM = 0.5
"""The score from which an answer counts as right, where a metric gives parts of a point."""

_LONGEST = 400  # Characters of a text; what comes behind is counted.
_MOST_ANSWERS = 5
_NEEDED = ("benchmark", "item_id", "question", "references", "prediction", "score")

Row = Mapping[str, Any]


def is_wrong(row: Row) -> bool:
    """Whether a prediction counts as wrong: scored below a half, or not answered at all."""
    return bool(row.get("fault")) or row["score"] < RIGHT_FROM


def filtered(rows: Sequence[Row], name: str, run: str | None, benchmark: str | None) -> list[Row]:
    """The rows of a run and a benchmark; None takes all.

    Raises InputError, naming the table and what it has, if a column or the name is not there.
    """
    kept = list(rows)
    for column, wanted in (("run_id", run), ("benchmark", benchmark)):
        if wanted is None:
            continue
        if kept and column not in kept[0]:
            raise InputError(f"{name}: no column '{column}' to choose by")
        there = list(dict.fromkeys(str(row[column]) for row in kept))
        kept = [row for row in kept if row[column] == wanted]
        if not kept:
            raise InputError(f"{name}: no {column} '{wanted}'; it has {_few(there)}")
    return kept


def score_rows(tables: Sequence[str], runs: Sequence[str], benchmarks: Sequence[str]) -> list[Row]:
    """Scores rows of scores tables, and of predictions tables added up; of the names given alone.

    Raises InputError for a table of another kind, and a name that no table has.
    """
    found: list[Row] = []
    for table in tables:
        head = read_rows(table)
        if head.footer.get("table") == specs.PREDICTIONS.name or (
            head.rows and "prediction" in head.rows[0]
        ):
            found += aggregate(read_rows(table, specs.PREDICTIONS).rows, incomplete=True)
        elif any(row.get("benchmark") and row.get("category") for row in head.rows):
            raise InputError(f"{title(table)}: need scores of whole benchmarks, found categories")
        else:
            found += read_rows(table, specs.SCORES).rows
    for column, wanted in (("run_id", runs), ("benchmark", benchmarks)):
        there = list(dict.fromkeys(str(row[column]) for row in found))
        for name in wanted:
            if name not in there:
                raise InputError(f"no {column} '{name}' in the tables; they have {_few(there)}")
        found = [row for row in found if not wanted or row[column] in wanted]
    if not found:
        raise InputError("no scores are left to draw; give fewer of --run and --benchmark")
    return found


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def choose(rows: Sequence[Row], name: str, n: int, wrong: bool) -> list[Row]:
    """`n` predictions, in turn from every run and benchmark, as the table has them; only wrong ones
    if asked.

    Raises InputError if the rows are no scored predictions, or none is wrong.
    """
    for column in _NEEDED:
        if rows and column not in rows[0]:
            raise InputError(
                f"{name}: no column '{column}'; answers are shown from a predictions table"
            )
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        if not wrong or is_wrong(row):
            groups[row["benchmark"], row.get("run_id"), row.get("visual_tokens")].append(row)
    if not groups:
        raise InputError(f"{name}: not one of {len(rows)} answers is wrong")
    turns = [(at, number) for number, own in enumerate(groups.values()) for at in range(len(own))]
    lists = list(groups.values())
    return [lists[number][at] for at, number in sorted(turns)[:n]]


def block(row: Row, number: int, total: int) -> str:
    """One prediction as lines of at most WIDTH columns: question, answer, truth, and where from."""
    image = row.get("image_id")
    parts = [f"{number}/{total}", row["benchmark"], row["item_id"]]
    parts += [image] if image and image != row["item_id"] else []
    head = "  ".join(plain(part) for part in parts)
    mark = "not answered" if row.get("fault") else f"score {row['score']:.3g}"
    lines = [f"{_cut(head, WIDTH - len(mark) - 2):<{WIDTH - len(mark)}}{mark}"]
    if row.get("run_id"):
        tokens = f" (V = {row['visual_tokens']})" if row.get("visual_tokens") else ""
        lines += _entry("run", f"{row['run_id']}{tokens}")
    lines += _entry("question", row["question"])
    if row.get("choices"):
        lines += _entry("choices", _options(row))
    if row.get("fault"):
        lines += _entry("fault", row["fault"])
    else:
        lines += _entry("answer", row["prediction"] or "(empty)")
        parsed = row.get("parsed")
        if parsed is not None and parsed != row["prediction"]:
            lines += _entry("read as", parsed or "(nothing)")
    lines += _entry("truth", truth(row["references"]))
    return "\n".join(lines)


def asked(row: Row) -> str:
    """The question on one line, with its options."""
    return plain(f"{row['question']} {_options(row)}" if row.get("choices") else row["question"])


def _options(row: Row) -> str:
    return " | ".join(f"{chr(ord('A') + i)}. {text}" for i, text in enumerate(row["choices"]))


def truth(references: Sequence[str]) -> str:
    """The accepted answers, the most frequent first, with how many of several said so."""
    counts = Counter(references)
    shown = [
        f"{answer} x{count}" if count > 1 else answer
        for answer, count in counts.most_common(_MOST_ANSWERS)
    ]
    more = len(counts) - len(shown)
    return " | ".join(shown) + (f" | and {more} more" if more else "")


def plain(text: str, longest: int = _LONGEST) -> str:
    """A text on one line: control characters escaped, a long one cut and its length told."""
    text = " ".join(str(text).split())
    whole = len(text)
    if whole > longest:
        text = f"{text[:longest]}... ({whole} characters)"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _entry(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        plain(text), WIDTH, initial_indent=f"  {label:<10}", subsequent_indent=" " * 12
    ) or [f"  {label:<10}"]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
