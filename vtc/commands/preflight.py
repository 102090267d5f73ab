"""What can be told of a command's models and folders before torch is loaded, which takes seconds.

Nothing here is the only check: what loads a model checks it again, as others call it too.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vtc.errors import InputError

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def check_parts(
    encoder: str,
    llm: str | None = None,
    compressors: Sequence[str] = (),
    visual_tokens: Iterable[int] = (),
    pool: int | None = None,
    turns: Any = None,
) -> None:
    """Raise InputError for a compressor, encoder, LLM or V that cannot be.

    V, `pool`, the `turns` of an elastic training and what is needed of the encoder beside patches
    are checked where its config is at hand: a folder, or in the catalog.
    """
    from vtc.compress.choices import (
        CHOICES,
        check_class_token,
        check_mergeable,
        check_name,
        check_pooling,
        check_turns,
        check_visual_tokens,
    )

    for name in compressors:
        check_name(name)
    check_model(encoder, "encoder")
    if llm is not None:
        check_model(llm, "llm")
    shape = _shape(encoder)
    grid = shape and shape.grid
    for name in compressors if shape else ():
        check_class_token(name, shape.class_token)
        check_mergeable(name, shape.mergeable)
    if pool is not None:
        check_pooling(grid, pool, compressors)
    if grid is not None:
        for name in compressors:
            for number in visual_tokens:
                check_visual_tokens(name, grid, number, CHOICES[name](grid))
    for name in compressors:
        for number in visual_tokens:
            check_turns(name, grid, number, turns)


def check_settings(
    compressors: Sequence[str], settings: Iterable[tuple[str, Any]]
) -> dict[str, Any] | None:
    """The settings of `--compressor-setting` by name, or None without any.

    Raises InputError for one that is there twice, or that one of the compressors does not have.
    """
    given = dict(pairs := list(settings))
    if len(given) < len(pairs):
        raise InputError("--compressor-setting names a setting twice")
    if given:
        from vtc.compress.registry import check_settings as check

        for name in compressors:
            check(name, given)
    return given or None


def check_model(source: str, kind: Any) -> None:
    """Raise InputError if a model is neither a whole folder nor can be a hub id.

    `kind` is "encoder" or "llm".
    """
    from vtc.catalog.folders import check_company, check_folder

    path = Path(source)
    if path.is_dir():
        check_folder(path, kind)
        check_company(path, kind)
    elif path.exists():
        raise InputError(f"{kind} {source} is a file; give the folder that it stands in")
    elif not _HUB_ID.fullmatch(source) or source.startswith("."):
        raise InputError(
            f"{kind} {source}: there is no such folder, nor is it a hub id such as ORG/NAME"
        )


def check_run(run: str) -> None:
    """Raise InputError for a run's folder that is not there, or not finished."""
    folder = Path(run)
    if run.startswith("hf:/") or (folder / "manifest.json").is_file():
        return
    what = "is no finished run: it has no manifest.json" if folder.is_dir() else "does not exist"
    raise InputError(f"run {run} {what}; train one with train-projector or finetune")


def check_engine(engine: str, python: str | None, answer_by: str, four_bit: bool) -> Any:
    """The vLLM that is to answer, or None where vtc itself does.

    Raises InputError for a wish that it cannot meet, and where it is not installed.
    """
    from vtc.evaluate.vllm_engine.check import check_wishes, find_vllm

    if engine == "vtc":
        if python is not None:
            raise InputError("--vllm-python is for --engine vllm; give both")
        return None
    check_wishes(answer_by, four_bit)
    return find_vllm(python)


def check_served(run: str, visual_tokens: Sequence[int]) -> None:
    """Raise InputError for a V at which a finished run on this disk cannot answer."""
    from vtc.compress.serving import check_served as check

    file = Path(run) / "manifest.json"
    if not visual_tokens or not file.is_file():
        return
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return
    if isinstance(manifest, dict) and {"compressor", "visual_tokens", "shapes"} <= set(manifest):
        for number in visual_tokens:
            check(run, manifest, number)


def check_cacheable(compressors: Iterable[str]) -> None:
    """Raise InputError for a compressor whose features no cache holds."""
    from vtc.compress.choices import check_cacheable as check

    for name in compressors:
        check(name)


def check_trained(compressors: Iterable[str]) -> None:
    """Raise InputError for a compressor that works inside a finished LLM, and is not trained."""
    from vtc.compress.choices import refuse_pruning

    refuse_pruning(compressors, " and is not trained")


def check_features(folder: str | None) -> None:
    """Raise InputError for a folder of features that is not there, or not finished."""
    if folder is None or (Path(folder) / "manifest.json").is_file():
        return
    unfinished = Path(folder).with_name(Path(folder).name + ".encoding").is_dir()
    what = "has no manifest.json" if Path(folder).is_dir() else "does not exist"
    way = (
        "end its encoding with 'vtc encode --resume'"
        if unfinished
        else "make them with 'vtc encode'"
    )
    raise InputError(f"features {folder}: {what}; {way}")


def _shape(encoder: str) -> Any:
    from vtc.catalog import encoders

    try:
        return encoders.shape(encoder)
    except InputError:
        # Shapes not known here are read off the model when it is loaded.
        return None
