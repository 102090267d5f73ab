"""Logged samples as lmms-eval 0.7.3 writes them, made of a benchmark's row and an answer.

The columns are those of real logs of the thirteen tasks on rows such as these.
"""

import json
from pathlib import Path
from typing import Any

TASKS = {
    "mme": "mme", "gqa": "gqa", "ai2d": "ai2d", "mmbench": "mmbench_en_dev_static",
    "mmmu": "mmmu_val", "scienceqa": "scienceqa_img", "mathvista": "mathvista_testmini_format",
    "pope": "pope", "chartqa": "chartqa", "docvqa": "docvqa_val", "textvqa": "textvqa_val",
    "vizwiz": "vizwiz_vqa_val", "vqav2": "vqav2_val",
}  # fmt: skip
PICTURES = ("image", "decoded_image", *(f"image_{n}" for n in range(1, 8)))


def sample(name: str, doc_id: int, row: dict[str, Any], prompt: str, answer: str) -> dict[str, Any]:
    """One line of a log of benchmark `name`; its row's pictures are never in it."""
    target = row.get("answer", row.get("answers"))
    if name in ("ai2d", "scienceqa"):
        target = chr(ord("A") + int(row["answer"]))
    line = {"doc_id": doc_id, "target": str(target), "filtered_resps": answer}
    line |= {"token_counts": [None], "doc_hash": "0", "input": prompt}
    return {**line, **_metrics(name, row)}


def _metrics(name: str, row: dict[str, Any]) -> dict[str, Any]:
    if name == "mme":
        kind = "perception" if row["category"] == "existence" else "cognition"
        said = {"question_id": row["question_id"], "category": row["category"], "score": 0.0}
        return {f"mme_{kind}_score": said}
    if name == "chartqa":
        return {"relaxed_overall": 0.0, f"relaxed_{row['type'].split('_')[0]}_split": 0.0}
    if name == "mmbench":
        dropped = ("image", "comment")
        said = {key: cell for key, cell in row.items() if key not in dropped} | {"E": "nan"}
        return {"gpt_eval_score": said, "submission": said}
    if name == "mmmu":
        return {"mmmu_acc": {key: row[key] for key in ("id", "question_type", "answer")}}
    if name == "mathvista":
        kept = ("choices", "answer", "question_type", "answer_type", "precision", "metadata")
        said = {"question_id": row["pid"], "query": "Hint: ...", **{key: row[key] for key in kept}}
        return {"llm_as_judge_eval": said}
    return {}


def write_log(folder: Path, name: str, samples: list[dict[str, Any]]) -> Path:
    """A log where and how `lmms_eval --log_samples --output_path` puts it."""
    place = folder / "some__model"
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"20261120_101112_samples_{TASKS.get(name, name)}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in samples), encoding="utf-8")
    return path
