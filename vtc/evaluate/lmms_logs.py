"""lmms-eval's logged samples (`--log_samples`): which file is one, and what its samples say.

Since version 0.2 a task's samples are JSON lines, `DATE_samples_TASK.jsonl` in a folder named after
the model: `doc_id` (the row's position in its split), `target` as text, `filtered_resps`, `resps`
where the filters changed it, `input` (the prompt), what the task's metrics return, and in early
versions `doc`, the row itself. Before that they are one JSON object: `logs` holds the samples,
`model_configs.task` the task.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vtc.errors import InputError
from vtc.tables.json_stream import stream_json

_NAME = re.compile(r"samples_(?P<task>.+)$")
_VARIANTS = ("_static", "_lite", "_dev", "_en", "_val", "_img", "_vqa")


class Sample(NamedTuple):
    """One answered document: its position, the answer, and what the log knows of it.

    `doc` is the row itself where the log has it; `metrics` are the log's other columns. `image`
    tells equal images, None where nothing does.
    """

    where: str
    doc_id: str
    prediction: str
    target: Any
    prompt: str
    doc: Mapping[str, Any] | None
    metrics: Mapping[str, Any]
    image: str | None


class Log(NamedTuple):
    """A log: the task as lmms-eval calls it, what the model was called, and the samples."""

    task: str | None
    model: str
    samples: Iterator[Sample]


def open_log(path: str | Path) -> Log | None:
    """The log in a file, recognised by its content; None for any other file.

    Raises InputError naming the sample whose answer is no text.
    """
    path = Path(path)
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        head = file.readline()
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return None
    first = _object(head)
    if is_sample(first):
        rows = stream_json(open(path, "rb"), str(path))  # noqa: SIM115 - the stream closes it.
        found = _NAME.search(path.stem)
        return Log(found["task"] if found else None, path.resolve().parent.name, _read(rows, path))
    whole = first if first is not None else _object(path.read_bytes())
    logs = whole.get("logs") if whole else None
    if not (isinstance(logs, list) and logs and is_sample(logs[0])):
        return None
    configs = whole.get("model_configs") if whole else None
    task = configs.get("task") if isinstance(configs, dict) else None
    return Log(task, path.resolve().parent.name, _read(iter(logs), path))


def benchmark_of(task: str, known: Any) -> str | None:
    """The name of a task's benchmark among those `known`: `vizwiz_vqa_val` is `vizwiz`."""
    name = task.lower().split("_testmini")[0]
    while name not in known:
        ending = next((end for end in _VARIANTS if name.endswith(end)), None)
        if ending is None:
            return None
        name = name.removesuffix(ending)
    return name


def _read(rows: Iterator[Any], path: Path) -> Iterator[Sample]:
    """The samples; one that stands again with the same answer (a second filter) is left out."""
    seen: dict[str, str] = {}
    for number, row in enumerate(rows):
        where = f"{path}, sample {number}"
        if not is_sample(row):
            raise InputError(f"{where}: no doc_id or no filtered_resps, as lmms-eval's have")
        sample = _sample(row, where)
        if seen.setdefault(sample.doc_id, sample.prediction) != sample.prediction:
            raise InputError(f"{where}: doc_id {sample.doc_id} stands twice, with two answers")
        if len(seen) > number or sample.doc_id not in seen:
            yield sample


def _sample(row: Mapping[str, Any], where: str) -> Sample:
    answers = row["resps"] if "resps" in row else row["filtered_resps"]
    prediction: Any = answers
    while isinstance(prediction, list) and prediction:
        prediction = prediction[0]
    if not isinstance(prediction, str):
        raise InputError(
            f"{where}: the answer is no generated text but {str(prediction)[:40]!r}; tasks "
            "answered by likelihood are not scored again"
        )
    doc = row.get("doc")
    prompt = row.get("input")
    if prompt is None:
        arguments = row.get("arguments")
        while isinstance(arguments, list) and arguments:
            arguments = arguments[0]
        prompt = arguments
    return Sample(
        where=where,
        doc_id=str(row["doc_id"]),
        prediction=prediction,
        target=row.get("target"),
        prompt=str(prompt or ""),
        doc=doc if isinstance(doc, dict) and doc else None,
        metrics=row,
        image=_image(row.get("input_media")),
    )


def _image(media: Any) -> str | None:
    """A name of the images shown: their files, or a hash of their data."""
    listed = media if isinstance(media, list) else []
    texts = [text for text in listed if isinstance(text, str)]
    if not texts:
        return None
    data = [text for text in texts if text.startswith("data:")]
    if not data:
        return " ".join(texts)
    return hashlib.sha256("".join(data).encode()).hexdigest()[:16]


def is_sample(row: Any) -> bool:
    """Whether a row is a sample of a log."""
    return isinstance(row, dict) and "doc_id" in row and ("filtered_resps" in row or "resps" in row)


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
