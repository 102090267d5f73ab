"""What a training with a compressor that reads the question must have: questions."""

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

    Under align no text is rendered, and so the template takes nothing away.
    """
    for name in filter(needs_query, compressors):
        if settings.template == "plain" and settings.objective == "lm":
            raise InputError(
                f"{name} compresses an image for the question about it, which --template plain "
                "throws away; use --template chat (--chat-template vicuna for an LLM without one)"
            )
