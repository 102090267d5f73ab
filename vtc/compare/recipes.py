"""Whether runs that are compared share their recipe and data, as their manifests say."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vtc.errors import InputError

# What a comparison is about, or what is another's by nature: see `train_visual_tokens`.
_FREE = {"seed", "data_seed", "log_every", "train_visual_tokens", "auto_batch", "max_memory"}
_DEEPEST = 4  # Folders below the one that is named.
_MOST = 3  # Runs that a sentence names.


def differences(folders: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each setting, or the data, of a stage in which runs of one LLM differ.

    Raises InputError for a folder that is not there, and if no run of the scores is in any.
    """
    if not folders:
        return []
    manifests = {one["run_id"]: one for folder in folders for one in _manifests(Path(folder))}
    wanted = list(dict.fromkeys(row["run_id"] for row in rows))
    asked = [name for name in wanted if name in manifests]
    if not asked:
        raise InputError(
            f"--runs {', '.join(folders)}: no manifest there is of a run of the scores, such as "
            f"{wanted[0]}"
        )
    lines = []
    lost = [name for name in wanted if name not in manifests]
    if lost:
        lines.append(f"No manifest there of {_some(lost)}.")
    stages = {"": asked, "stage 1, ": [manifests[name].get("parent") for name in asked]}
    for stage, names in stages.items():
        by_llm: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for name in dict.fromkeys(names):
            if name in manifests:
                by_llm[manifests[name]["llm"]["name"]].append(manifests[name])
        for llm, own in by_llm.items():
            lines += [f"{stage}{llm}: {line}" for line in _told(own)]
    return lines or ["Recipes and data are the same in all runs of an LLM, as their manifests say."]


def _manifests(folder: Path) -> Iterator[Mapping[str, Any]]:
    if not folder.is_dir():
        raise InputError(f"--runs {folder} is no folder")
    for depth in range(_DEEPEST + 1):
        for path in sorted(folder.glob("/".join(["*"] * depth + ["manifest.json"]))):
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{path} is no JSON: {error}") from None
            if isinstance(found, dict) and "run_id" in found and "llm" in found:
                yield found


def _told(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs among runs of one stage and LLM."""
    facts: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for one in manifests:
        footer = one.get("footer") or {}
        settings = {k: v for k, v in (footer.get("settings") or {}).items() if k not in _FREE}
        data = sorted(item.get("sha256") or item["path"] for item in footer.get("inputs") or ())
        told = {**settings, "data": [text[:12] for text in data], "encoder": one["encoder"]["name"]}
        for name, value in told.items():
            facts[name][json.dumps(value, sort_keys=True)].append(one["run_id"])
    lines = []
    for name, values in facts.items():
        if len(values) > 1:
            said = "; ".join(f"{value} in {_some(runs)}" for value, runs in values.items())
            lines.append(f"{name} differs: {said}.")
    return lines


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")
