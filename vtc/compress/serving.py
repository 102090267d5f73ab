"""What a run can be asked for, by its manifest: the V of its compressor. Light: no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtc.compress.choices import KNOWN, listed
from vtc.errors import InputError

_MANY = 12


def trained_of(manifest: Mapping[str, Any]) -> tuple[int, ...]:
    """The V that a run was trained at, by its manifest; none where others' weights are refitted."""
    trained = manifest.get("trained_visual_tokens")
    return (manifest["visual_tokens"],) if trained is None else tuple(trained)


def repeats_of(manifest: Mapping[str, Any]) -> int:
    """How often a run was trained to be fed each of its visual tokens, by its manifest."""
    return manifest.get("repeat_visual_tokens") or 1


def fed_name(visual_tokens: int, repeats: int) -> str:
    """V, and how often it is fed, in the names of runs: v16, or v4x4 of four tokens four times."""
    return f"v{visual_tokens}x{repeats}" if repeats > 1 else f"v{visual_tokens}"


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
            f"run {run}: its compressor {name} cannot make {visual_tokens} visual tokens of {own} "
            f"at most; choose from {listed(choices)}"
        )


def untrained(run: str | Path, manifest: Mapping[str, Any], asked: Sequence[int]) -> str | None:
    """A warning that a run was not trained at some of the V asked for; None if it was at all.

    And None for one that has a compressor without training, of which nobody expects it.
    """
    trained = trained_of(manifest)
    outside = sorted(set(asked) - set(trained))
    if not outside or not trained:
        return None
    return (
        f"warning: run {run} was trained at V = {_few(trained)}, not at {_few(outside)}: "
        "answers there are not those of a run trained for it"
    )


def other_repeats(run: str | Path, manifest: Mapping[str, Any], asked: int | None) -> str | None:
    """A warning that a run was not trained to be fed its tokens so often; None if it was."""
    own = repeats_of(manifest)
    if asked is None or asked == own:
        return None
    return (
        f"warning: run {run} was trained to be fed its visual tokens {_times(own)}, not "
        f"{_times(asked)}: answers are not those of a run trained for it"
    )


def _few(numbers: Sequence[int]) -> str:
    """Numbers as words; of many the first and the last, and how many they are."""
    said = listed(numbers)
    if said.count(",") < _MANY:
        return said
    first = ", ".join(said.split(", ")[:3])
    return f"{first}, ..., {numbers[-1]} ({len(numbers)} in all)"


def _times(repeats: int) -> str:
    return "once" if repeats == 1 else f"{repeats} times"
