"""A row of the predictions table: which run was asked what, what it said, and its score."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtc.compress.registry import settings_text
from vtc.compress.serving import repeats_of, trained_of
from vtc.evaluate.aggregate import score_item
from vtc.evaluate.answered import Answer
from vtc.evaluate.exam import Exam
from vtc.evaluate.item import Item
from vtc.model.manifest import read_manifest, run_folder


def facts_of(folder: Path) -> dict[str, Any]:
    """What rows say of a run: its manifest, and its compressor's settings as text.

    Raises InputError if the folder is no finished run.
    """
    manifest = read_manifest(folder)
    config = json.loads((run_folder(folder) / "config.json").read_text(encoding="utf-8"))
    said = settings_text(manifest["compressor"], config.get("compressor_settings"))
    return {**manifest, "compressor_settings": said}


def prediction_row(
    manifest: Mapping[str, Any],
    exam: Exam,
    item: Item,
    answer: Answer,
    visual_tokens: int | None = None,
    repeats: int | None = None,
) -> dict[str, Any]:
    """The scored row of an answer; `manifest` is the run's, as `facts_of` gives it.

    `visual_tokens` is the V that it answered at and `repeats` how often it was fed them, if not its
    own.
    """
    llm, benchmark = manifest["llm"], exam.benchmark
    v = visual_tokens or manifest["visual_tokens"]
    own = repeats_of(manifest)
    times = repeats or own
    return score_item(
        {
            "run_id": manifest["run_id"],
            "backbone": llm["name"],
            "family": llm["family"],
            "n_params": llm["n_params"],
            "n_params_total": llm["n_params_total"],
            "n_params_nonembedding": llm["n_params_nonembedding"],
            "compressor": manifest["compressor"],
            "compressor_settings": manifest["compressor_settings"],
            "visual_tokens": v * times,
            "visual_tokens_repeated": times if times > 1 else None,
            "visual_tokens_mean": manifest.get("visual_tokens_mean"),
            "visual_tokens_kept": manifest.get("visual_tokens_kept"),
            "visual_tokens_trained": v in trained_of(manifest) and times == own,
            "encoder": manifest["encoder"]["name"],
            "seed": manifest.get("seed"),
            "benchmark": benchmark.name,
            "task": benchmark.task,
            "metric": benchmark.metric,
            "chance": exam.chance,
            "item_id": item.item_id,
            "image_id": item.image_id,
            "question": item.question,
            "references": item.references,
            "choices": list(item.choices) or None,
            "category": item.category,
            "group": item.group,
            "about": json.dumps(item.about, ensure_ascii=False) if item.about else None,
            "prediction": answer.text,
            "answered_by": answer.answered_by,
            "n_text_tokens": answer.n_text_tokens,
            "n_generated": answer.n_generated,
            "prompt_sha": benchmark.prompt_sha,
            "fault": answer.fault,
        }
    )
