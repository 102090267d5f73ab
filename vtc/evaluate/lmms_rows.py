"""A benchmark's row put together again from what lmms-eval logs of it, where that is enough."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vtc.errors import InputError
from vtc.evaluate.benchmarks.rows import DataRow, literal_list
from vtc.evaluate.benchmarks.spec import Spec
from vtc.evaluate.item import Item
from vtc.evaluate.lmms_logs import Sample

_OPTION = re.compile(r"^([A-Z])\. ?(.*)$", re.MULTILINE)

Cells = dict[str, Any]


def item_of(spec: Spec, sample: Sample) -> Item:
    """The item that a sample answers, from the row that it holds or from its other columns.

    Raises InputError naming the sample, and --data-dir as the way out, where the log has not
    enough: TextVQA's, VizWiz's and VQAv2's ten answers are not in it.
    """
    if sample.doc is not None:
        cells = dict(sample.doc)
    else:
        make = _FROM_LOG.get(spec.name)
        if make is None:
            raise InputError(
                f"{sample.where}: the log does not hold the accepted answers of {spec.name}; name "
                "a folder of its rows with --data-dir"
            )
        cells = make(sample)
    # The pictures are never in a log; what stands for them tells equal ones.
    shown = sample.image or f"document {sample.doc_id}"
    if spec.joined is not None and cells.get(spec.joined.column) is not None:
        shown = str(cells[spec.joined.column])
    for column in spec.image_columns:
        cells[column] = shown
    try:
        item = spec.item(DataRow(cells, sample.where, lambda picture: shown))
    except InputError as error:
        if sample.doc is not None:
            raise
        raise InputError(
            f"{sample.where}: the log is not enough to score {spec.name} again ({error}); name a "
            "folder of its rows with --data-dir"
        ) from None
    # A pair or a circle shows one image, where nothing else tells.
    return replace(item, cluster=item.group) if sample.image is None and item.group else item


def bare_references(sample: Sample) -> list[str]:
    """The accepted answers of a task that vtc does not know: its target, one or a list as text.

    Raises InputError for a sample without a target.
    """
    if sample.target is None:
        raise InputError(f"{sample.where}: no target; the task's answers are not in the log")
    listed = literal_list(sample.target) if isinstance(sample.target, str) else sample.target
    if isinstance(listed, list) and listed:
        return [str(answer) for answer in listed]
    return [str(sample.target)]


def options(prompt: str) -> list[str]:
    """The texts of the options A., B., ... that a prompt lists, a line each; [] if it lists none.

    Of several lists the last counts.
    """
    found: list[str] = []
    for letter, text in _OPTION.findall(prompt):
        if letter == "A":
            found = [text]
        elif found and letter == chr(ord("A") + len(found)):
            found.append(text)
    return found


def _asked(sample: Sample) -> Cells:
    return {"question": sample.prompt or "?", "answer": str(sample.target)}


def _metric(sample: Sample, *names: str) -> Mapping[str, Any]:
    """What a metric of the task returned for the sample: an object with facts about the row."""
    for name in names:
        if isinstance(found := sample.metrics.get(name), dict):
            return found
    return {}


def _mme(sample: Sample) -> Cells:
    said = _metric(sample, "mme_perception_score", "mme_cognition_score")
    return {**_asked(sample), **{key: said.get(key) for key in ("question_id", "category")}}


def _pope(sample: Sample) -> Cells:
    # Question ids repeat between the categories, which the log does not name.
    return {**_asked(sample), "id": sample.doc_id}


def _gqa(sample: Sample) -> Cells:
    return {**_asked(sample), "id": sample.doc_id}


def _chartqa(sample: Sample) -> Cells:
    kind = "human_test" if "relaxed_human_split" in sample.metrics else "augmented_test"
    return {**_asked(sample), "type": kind}


def _docvqa(sample: Sample) -> Cells:
    cells = {**_asked(sample), "questionId": sample.doc_id}
    return {**cells, "answers": bare_references(sample)}


def _lettered(column: str) -> Callable[[Sample], Cells]:
    """Options from the prompt into `column`; the target is a letter, the row's answer a number."""

    def make(sample: Sample) -> Cells:
        target = str(sample.target).strip()
        number = ord(target) - ord("A") if len(target) == 1 else -1
        return {**_asked(sample), column: options(sample.prompt), "answer": number}

    return make


def _mmbench(sample: Sample) -> Cells:
    return dict(_metric(sample, "gpt_eval_score", "submission"))


def _mmmu(sample: Sample) -> Cells:
    said = _metric(sample, "mmmu_acc")
    kept = {key: said.get(key) for key in ("id", "question_type", "answer")}
    # Which images a question shows does not matter here, nor does the question's text.
    return {**kept, "question": "?", "options": options(sample.prompt)}


def _mathvista(sample: Sample) -> Cells:
    said = _metric(sample, "llm_as_judge_eval", "submission")
    return {**said, "pid": said.get("question_id"), "question": sample.prompt or "?"}


_FROM_LOG: dict[str, Callable[[Sample], Cells]] = {
    "mme": _mme,
    "gqa": _gqa,
    "ai2d": _lettered("options"),
    "mmbench": _mmbench,
    "mmmu": _mmmu,
    "scienceqa": _lettered("choices"),
    "mathvista": _mathvista,
    "pope": _pope,
    "chartqa": _chartqa,
    "docvqa": _docvqa,
}
