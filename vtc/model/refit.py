"""A finished run with a training-free compressor before its projector: the same weights."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from vtc.compress.choices import (
    KNOWN,
    Grid,
    check_class_token,
    check_training_free,
    check_visual_tokens,
    training_free,
)
from vtc.compress.registry import settings_text
from vtc.compress.serving import repeats_of
from vtc.errors import InputError
from vtc.model.manifest import MANIFEST, read_manifest, run_folder, write_manifest

_CONFIG, _PROCESSOR = "config.json", "processor_config.json"


class Refit(NamedTuple):
    """The compressor that runs are shown images with, in place of their own, and its V."""

    compressor: str
    visual_tokens: tuple[int, ...]
    settings: Mapping[str, Any] | None = None


@contextmanager
def refitted(runs: Sequence[str | Path], refit: Refit | None) -> Iterator[list[Path]]:
    """Folders of runs refitted at each V, as long as the context lasts; the runs' own without.

    Raises InputError as `refit_run`.
    """
    if refit is None:
        yield [Path(run) for run in runs]
        return
    with TemporaryDirectory(prefix="vtc-refit-") as place:
        yield [
            refit_run(run, Path(place) / str(number), refit, tokens)
            for number, run in enumerate(runs)
            for tokens in refit.visual_tokens
        ]


def refit_run(run: str | Path, place: Path, refit: Refit, visual_tokens: int) -> Path:
    """Make a run folder below `place` whose weights are links to those of another run.

    It differs in compressor, V, and what follows from them; its run_id is the other's and names
    both. Raises InputError for a compressor that must be trained, a run whose projector is not
    LLaVA's, an encoder that lacks what is needed, and a V that cannot be.
    """
    folder = run_folder(run).resolve()
    manifest = read_manifest(folder)
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    check_refit(run, manifest, config, refit.compressor, visual_tokens)
    name = f"{refit.compressor}-v{visual_tokens}"
    made = place / f"{Path(run).name}+{name}"
    made.mkdir(parents=True)
    for file in folder.iterdir():
        if file.name not in (MANIFEST, _CONFIG, _PROCESSOR):
            (made / file.name).symlink_to(file)
    level = {k: v for k, v in (config.get("compressor_settings") or {}).items() if k == "level"}
    settings = {**level, **(refit.settings or {})}
    fed = visual_tokens * repeats_of(manifest)
    config |= {
        "compressor": refit.compressor,
        "compressor_settings": settings or None,
        "visual_tokens": visual_tokens,
        "image_seq_length": fed,
    }
    _write(made / _CONFIG, config)
    if (folder / _PROCESSOR).is_file():
        processor = json.loads((folder / _PROCESSOR).read_text(encoding="utf-8"))
        _write(made / _PROCESSOR, {**processor, "visual_tokens": fed})
    about = {
        **manifest,
        "run_id": f"{manifest['run_id']}+{name}{_said(refit.compressor, settings)}",
        "compressor": refit.compressor,
        "visual_tokens": visual_tokens,
        "shapes": {k: v for k, v in manifest.get("shapes", {}).items() if k != "levels"},
        "trained_visual_tokens": manifest.get("trained_visual_tokens")
        or [manifest["visual_tokens"]],
        "parent": manifest["run_id"],
    }
    for part in ("encoder", "llm", "base"):
        about[part] = _moved(manifest.get(part), folder, made)
    write_manifest(about, made)
    return made


def check_refit(
    run: str | Path,
    manifest: Mapping[str, Any],
    config: Mapping[str, Any],
    compressor: str,
    visual_tokens: int,
) -> None:
    """Raise InputError, naming the run, where a compressor cannot take the place of its own."""
    check_training_free(compressor)
    own = manifest["compressor"]
    if own not in ("mlp", *training_free()):
        raise InputError(
            f"run {run}: its compressor {own} has no projector of single patches, which "
            f"{compressor} needs; take a run of mlp, one's own or imported"
        )
    try:
        check_class_token(compressor, config.get("vision_feature_select_strategy") != "full")
        grid: Grid = tuple(manifest["shapes"]["grid"])
        check_visual_tokens(compressor, grid, visual_tokens, KNOWN[compressor].supported(grid))
    except InputError as error:
        raise InputError(f"run {run}: {error}") from None


def _said(compressor: str, settings: Mapping[str, Any]) -> str:
    """Settings in a run_id, so that runs that differ in them stay apart."""
    said = settings_text(compressor, settings)
    return f"-{said.replace(', ', ',')}" if said else ""


def _moved(entry: Any, folder: Path, made: Path) -> Any:
    """An entry of a backbone, whose place is also stated relative to the run's new folder."""
    if not entry or not entry.get("relative_path"):
        return entry
    place = (folder / entry["relative_path"]).resolve()
    return {**entry, "relative_path": os.path.relpath(place, made.resolve())}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
