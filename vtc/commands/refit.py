"""Flags that give finished runs a training-free compressor, and what can be told of them early."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from vtc.commands import options, preflight
from vtc.errors import InputError


def refit_options(command: Callable) -> Callable:
    """Add `--compressor`, its settings and how it behaves to a command that asks finished runs."""
    added = (
        click.option(
            "--compressor",
            help="Compressor that needs no training, such as visionzip, in place of the one of "
            "mlp runs; takes --visual-tokens (fastv and pyramiddrop: a layer, on average). "
            "[default: the run's]",
        ),
        click.option(
            "--compressor-setting",
            "compressor_settings",
            type=options.Setting(),
            multiple=True,
            help="A setting of --compressor, such as contextual=4 (docs/compressors.md).",
        ),
        click.option(
            "--reference-behaviour",
            is_flag=True,
            help="Have --compressor do as its released code does, where vtc does not.",
        ),
    )
    for option in reversed(added):
        command = option(command)
    return command


class Asked(NamedTuple):
    """What the flags say: a compressor, its V, and its settings."""

    compressor: str
    visual_tokens: tuple[int | None, ...]
    settings: dict[str, Any] | None


def folders_of(runs: Sequence[str], wanted: Asked | None) -> list[Path]:
    """The folders of the runs, or of them refitted at each V, until the command has ended."""
    if wanted is None:
        return [Path(run) for run in runs]

    from vtc import console
    from vtc.model.refit import Refit, dropped, refitted

    folders = click.get_current_context().with_resource(refitted(runs, Refit(*wanted)))
    for sentence in dict.fromkeys(filter(None, map(dropped, folders))):
        console.say(sentence)
    return folders


def asked(
    compressor: str | None,
    settings: Iterable[tuple[str, Any]],
    visual_tokens: Sequence[int] | int | None,
    reference_behaviour: bool = False,
) -> Asked | None:
    """What the flags say, checked without torch where they have no settings; None without any.

    Raises InputError for a compressor that must be trained, settings without one, and no V.
    """
    given = list(settings)
    if reference_behaviour and compressor is None:
        raise InputError(
            "--reference-behaviour is of a --compressor; name it. A run's own compressor does as "
            "its settings say, with which it was trained"
        )
    if compressor is None:
        if given:
            raise InputError("--compressor-setting is of a --compressor; name it")
        return None

    from vtc.compress.choices import KNOWN, check_training_free

    check_training_free(compressor)
    if reference_behaviour:
        from vtc.compress.registry import setting_names

        if "reference_behaviour" not in setting_names(compressor):
            raise InputError(
                f"--reference-behaviour: {compressor} behaves in one way alone; leave it out"
            )
        given.append(("reference_behaviour", True))
    own = preflight.check_settings([compressor], given)
    if KNOWN[compressor].schedule is not None and "average" in (own or {}):
        raise InputError("--compressor-setting average is --visual-tokens; give that")
    if KNOWN[compressor].schedule is not None and "ratio" in (own or {}):
        if visual_tokens:
            raise InputError(
                "--visual-tokens and --compressor-setting ratio both say how many tokens stay; "
                "give one"
            )
        return Asked(compressor, (None,), own)
    if not visual_tokens:
        what = "how many visual tokens an image has, with --visual-tokens"
        if KNOWN[compressor].schedule is not None:
            what = (
                "how many visual tokens a layer has on average, with --visual-tokens, or which "
                "share stays, with --compressor-setting ratio=0.5"
            )
        raise InputError(f"--compressor {compressor}: say {what}")
    many = (visual_tokens,) if isinstance(visual_tokens, int) else tuple(visual_tokens)
    return Asked(compressor, many, own)
