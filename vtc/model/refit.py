"""A finished run with a training-free compressor before its projector: the same weights."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from vtc.catalog.shapes import is_mergeable
from vtc.compress.choices import (
    KNOWN,
    Grid,
    check_class_token,
    check_mergeable,
    check_training_free,
    check_visual_tokens,
    training_free,
)
from vtc.compress.interface import resolve_level
from vtc.compress.pruning import Schedule, schedule_of
from vtc.compress.registry import settings_text
from vtc.compress.serving import repeats_of, trained_of
from vtc.errors import InputError
from vtc.model.config import VtcConfig
from vtc.model.manifest import MANIFEST, check_shapes, read_manifest, run_folder, write_manifest
from vtc.model.repeating import entering
from vtc.model.replacing import exchange_compressor
from vtc.model.run import Run

_CONFIG, _PROCESSOR = "config.json", "processor_config.json"
_ORIGIN = "refit_of"
"""In a refitted run's folder: a link to the run whose weights it shows."""


class Refit(NamedTuple):
    """The compressor that runs are shown images with, in place of their own, and its V.

    V of one that drops tokens inside the LLM is the most that a layer has on average; None where
    its settings say how many stay.
    """

    compressor: str
    visual_tokens: tuple[int | None, ...]
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


def refit_run(run: str | Path, place: Path, refit: Refit, visual_tokens: int | None) -> Path:
    """Make a run folder below `place` whose weights are links to those of another run.

    It differs in compressor, V, and what follows from them; its run_id is the other's and names
    both. Raises InputError for a compressor that must be trained, a run whose projector is not
    LLaVA's, an encoder that lacks what is needed, and a V that cannot be.
    """
    folder = run_folder(run).resolve()
    manifest = read_manifest(folder)
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    check_refit(run, manifest, config, refit, visual_tokens)
    name = refit.compressor if visual_tokens is None else f"{refit.compressor}-v{visual_tokens}"
    made = place / f"{Path(run).name}+{name}"
    made.mkdir(parents=True)
    for file in folder.iterdir():
        if file.name not in (MANIFEST, _CONFIG, _PROCESSOR, _ORIGIN):
            (made / file.name).symlink_to(file)
    (made / _ORIGIN).symlink_to(origin(folder))
    level = {k: v for k, v in (config.get("compressor_settings") or {}).items() if k == "level"}
    settings = {**level, **(refit.settings or {})}
    said = _said(refit.compressor, settings)
    dropping_keys = ("visual_tokens_mean", "visual_tokens_kept")
    dropping: dict[str, Any] = {}
    drops = False
    if KNOWN[refit.compressor].schedule is not None:
        settings |= {} if visual_tokens is None else {"average": visual_tokens}
        schedule = schedule_on(manifest, config, refit.compressor, settings)
        dropping = dict(zip(dropping_keys, (schedule.mean, schedule.kept), strict=True))
        visual_tokens, drops = schedule.n_tokens, bool(schedule.drops)
    assert visual_tokens is not None
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
        **{k: v for k, v in manifest.items() if k not in dropping_keys},
        "run_id": f"{manifest['run_id']}+{name}{said}",
        "compressor": refit.compressor,
        "visual_tokens": visual_tokens,
        **dropping,
        "shapes": {k: v for k, v in manifest.get("shapes", {}).items() if k != "levels"},
        "trained_visual_tokens": [visual_tokens]
        if not drops and _as_trained(folder, refit.compressor, settings, visual_tokens)
        else [],
        "parent": manifest["run_id"],
    }
    for part in ("encoder", "llm", "base"):
        about[part] = _moved(manifest.get(part), folder, made)
    write_manifest(about, made)
    return made


def origin(run: str | Path) -> Path:
    """The folder of the run whose weights a run shows: itself, unless it is refitted."""
    folder = run_folder(run).resolve()
    link = folder / _ORIGIN
    return link.resolve() if link.is_symlink() else folder


def refit_loaded(run: Run, folder: str | Path) -> None:
    """Make a loaded run what `load_run(folder)` would give, without reading its weights again.

    Both must have the same `origin`. The model and the processor are the run's own, changed in
    place: the compressor shares the weights of the one that goes. Visual tokens are fed as often
    as the folder's config says. Raises ValueError for a run of another origin, and InputError as
    `load_run` for sizes that do not agree.
    """
    if origin(run.folder) != origin(folder):
        raise ValueError(f"{folder} does not have the weights of {run.folder}")
    place = run_folder(folder)
    manifest = read_manifest(place)
    exchange_compressor(run.model, VtcConfig.from_pretrained(place))
    run.processor.visual_tokens = entering(run.model)
    check_shapes(run.model, manifest, place)
    run.folder, run.manifest = place, manifest


def check_refit(
    run: str | Path,
    manifest: Mapping[str, Any],
    config: Mapping[str, Any],
    refit: Refit,
    visual_tokens: int | None,
) -> None:
    """Raise InputError, naming the run, where a compressor cannot take the place of its own."""
    compressor = refit.compressor
    check_training_free(compressor)
    own = manifest["compressor"]
    if own not in ("mlp", *training_free()):
        raise InputError(
            f"run {run}: its compressor {own} has no projector of single patches, which "
            f"{compressor} needs; take a run of mlp, one's own or imported"
        )
    try:
        check_class_token(compressor, config.get("vision_feature_select_strategy") != "full")
        check_mergeable(compressor, is_mergeable(config["vision_config"].get("model_type")))
        grid: Grid = tuple(manifest["shapes"]["grid"])
        if KNOWN[compressor].schedule is not None:
            if repeats_of(manifest) > 1:
                raise InputError(
                    f"it feeds its visual tokens {repeats_of(manifest)} times, and {compressor} "
                    "drops tokens that are there once; take another run"
                )
            asked = {} if visual_tokens is None else {"average": visual_tokens}
            schedule_on(manifest, config, compressor, {**(refit.settings or {}), **asked})
        else:
            assert visual_tokens is not None
            check_visual_tokens(compressor, grid, visual_tokens, KNOWN[compressor].supported(grid))
    except InputError as error:
        raise InputError(f"run {run}: {error}") from None


def schedule_on(
    manifest: Mapping[str, Any],
    config: Mapping[str, Any],
    compressor: str,
    settings: Mapping[str, Any],
) -> Schedule:
    """The visual tokens in each layer of a run's LLM, of a compressor that drops some there.

    Raises InputError for what the LLM or the settings do not allow.
    """
    make = KNOWN[compressor].schedule
    assert make is not None
    rows, columns = manifest["shapes"]["grid"]
    return schedule_of(make, config["text_config"]["num_hidden_layers"], rows * columns, settings)


def dropped(folder: Path) -> str | None:
    """What a refitted run's LLM drops, in words; None where all that enter stay."""
    manifest = read_manifest(folder)
    if manifest.get("visual_tokens_mean") is None:
        return None
    left = f"{manifest['visual_tokens_kept']} reach its last layer"
    if not manifest["visual_tokens_kept"]:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        own = manifest, config, manifest["compressor"], config["compressor_settings"] or {}
        last = next(drop.layer for drop in schedule_on(*own).drops if not drop.kept)
        left = (
            f"none is left behind layer {last}: deeper ones see nothing of it but what the text "
            "took from it before"
        )
    return (
        f"{manifest['compressor']}: of an image {manifest['visual_tokens']} visual tokens enter "
        f"the LLM, {left}; {manifest['visual_tokens_mean']:.4g} a layer on average"
    )


def _as_trained(
    folder: Path, compressor: str, settings: Mapping[str, Any], visual_tokens: int
) -> bool:
    """Whether a run's projector was trained on the tokens of a compressor that drops none later.

    So it was if it is the run's own as it was trained, or if both make `mlp`'s of every patch.
    """
    run = origin(folder)
    manifest = read_manifest(run)
    config = json.loads((run / _CONFIG).read_text(encoding="utf-8"))
    own, given = manifest["compressor"], config.get("compressor_settings") or {}
    if visual_tokens not in trained_of(manifest):
        return False
    if compressor == own and settings_text(own, settings) == settings_text(own, given):
        return True
    depth = config["vision_config"]["num_hidden_layers"]
    levels = {resolve_level(each.get("level", -2), depth) for each in (settings, given)}
    rows, columns = manifest["shapes"]["grid"]
    plain = KNOWN[own].mlp_at_every_patch and KNOWN[compressor].mlp_at_every_patch
    return plain and len(levels) == 1 and visual_tokens == rows * columns


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
