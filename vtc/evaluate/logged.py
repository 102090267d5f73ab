"""lmms-eval's logged samples as scored predictions to look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.evaluate import lmms_logs
from vtc.evaluate.aggregate import score_item
from vtc.evaluate.benchmarks.registry import SPECS
from vtc.evaluate.predictions import Source, read_predictions

# A log says neither; they are needed to score its answers, and left out again.
_UNKNOWN = {"n_params": 1_000_000, "visual_tokens": 1}
_SHOWN = (
    *("run_id", "benchmark", "item_id", "image_id", "question", "references", "choices"),
    *("category", "prediction", "parsed", "score", "parser", "fault"),
)


def logged_rows(
    path: str | Path, data_dir: str | None, say: Callable[[str], object]
) -> list[dict[str, Any]] | None:
    """The samples of a log with question, truth and score; None for a file that is no log.

    They are read and scored as `vtc score` does; the question is the prompt. `data_dir` holds the
    rows of benchmarks whose truth is in no log. Raises InputError for a task that vtc has no
    benchmark of, and as `read_predictions`.
    """
    log = None if str(path) == "-" else lmms_logs.open_log(path)
    if log is None:
        return None
    if lmms_logs.benchmark_of(log.task or "", SPECS) is None:
        raise InputError(
            f"{path}: vtc knows no benchmark of the task '{log.task}'; without --wrong and --sheet "
            "its rows are shown as they stand"
        )
    source = Source(_UNKNOWN, data_dir, incomplete=True, say=say)
    rows = []
    for sample, row in zip(log.samples, read_predictions(path, source), strict=False):
        scored = {**score_item(row), "question": sample.prompt or f"document {sample.doc_id}"}
        rows.append({name: scored.get(name) for name in _SHOWN})
    return rows
