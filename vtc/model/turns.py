"""The numbers of visual tokens that a run was trained at, and those it is asked to serve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtc.compress.choices import KNOWN, Asked, check_turns, listed
from vtc.errors import InputError


def trained_at(model: Any) -> tuple[int, ...]:
    """The V that a model's training takes its turns from, ascending; its own alone if not elastic.

    They are the setting `trained` of its compressor, which its config keeps.
    """
    if "trained" in (model.config.compressor_settings or {}):
        return model.compressor.trained_visual_tokens
    return (model.compressor.visual_tokens,)


def train_at(model: Any, asked: Asked | None) -> None:
    """Choose the V of a model's training, which its config keeps; None leaves them as they are.

    The compressor's own V is always among them; if it is the only one, the training is not
    elastic. Raises InputError as `choices.check_turns`.
    """
    if asked is None:
        return
    compressor, settings = model.compressor, dict(model.config.compressor_settings or {})
    own = compressor.visual_tokens
    check_turns(model.config.compressor, compressor.grid, own, asked)
    settings.pop("trained", None)
    if asked == "published" or tuple(asked) != (own,):
        compressor.take_turns(None if asked == "published" else asked)
        settings["trained"] = list(compressor.trained_visual_tokens)
    model.config.compressor_settings = settings or None


def trained_of(manifest: Mapping[str, Any]) -> tuple[int, ...]:
    """The V that a run was trained at, by its manifest."""
    return tuple(manifest.get("trained_visual_tokens") or (manifest["visual_tokens"],))


def check_served(run: str | Path, manifest: Mapping[str, Any], visual_tokens: int) -> None:
    """Raise InputError, naming the run, for a V at which its compressor cannot show images."""
    name, own = manifest["compressor"], manifest["visual_tokens"]
    if visual_tokens == own:
        return
    known = KNOWN.get(name)
    if known is None or not known.elastic:
        raise InputError(
            f"run {run}: its compressor {name} makes {own} visual tokens, not {visual_tokens}; "
            "leave --visual-tokens out, or take a run of that V"
        )
    rows, columns = manifest["shapes"]["grid"]
    choices = [v for v in known.supported((rows, columns)) if v <= own]
    if visual_tokens not in choices:
        raise InputError(
            f"run {run}: its compressor {name} cannot make {visual_tokens} visual tokens; choose "
            f"from {listed(choices)}"
        )


def untrained(run: str | Path, manifest: Mapping[str, Any], asked: Sequence[int]) -> str | None:
    """A warning that a run was not trained at some of the V asked for; None if it was at all."""
    trained = trained_of(manifest)
    outside = [v for v in asked if v not in trained]
    if not outside:
        return None
    return (
        f"warning: run {run} was trained at V = {listed(trained)}, not at {listed(outside)}: "
        "what it answers there is not what a training would give"
    )
