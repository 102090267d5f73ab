"""What a training with a compressor that reads text must have, or cannot have."""

from collections.abc import Iterable

from vtc.compress.choices import KNOWN
from vtc.errors import InputError
from vtc.train.settings import StageSettings


def needs_query(compressor: str) -> bool:
    """Whether a compressor reads the question."""
    known = KNOWN.get(compressor)
    return known is not None and known.needs_query


def check_questions(compressors: Iterable[str], settings: StageSettings) -> None:
    """Raise InputError where a compressor reads the question, and the settings leave none.

    Under align no text is rendered, and so the template takes nothing away. And for a scope of
    questions where no compressor reads any.
    """
    names = list(compressors)
    if settings.query_scope is not None and not any(map(needs_query, names)):
        readers = ", ".join(filter(needs_query, KNOWN))
        raise InputError(
            f"--query-scope says which question {readers} compresses an image for; "
            f"{', '.join(dict.fromkeys(names))} reads none, leave it out"
        )
    for name in filter(needs_query, names):
        if settings.template == "plain" and settings.objective == "lm":
            raise InputError(
                f"{name} compresses an image for the question about it, which --template plain "
                "throws away; use --template chat (--chat-template vicuna for an LLM without one)"
            )


def check_fusing(compressors: Iterable[str], settings: StageSettings) -> None:
    """Raise InputError where a compressor fuses text, and the settings leave no room for it."""
    for name in compressors:
        known = KNOWN.get(name)
        if known is None or not known.fuses:
            continue
        for flag, given in (("--pack", settings.pack), ("--compile", settings.compile)):
            if given:
                raise InputError(
                    f"{flag} is for batches that go to the LLM as they are, and {name} fuses each "
                    "row's text with its images; leave it out"
                )
