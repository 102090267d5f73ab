"""The numbers of visual tokens that a model is trained at: its own, or those of a set."""

from typing import Any

from vtc.compress.choices import Asked, check_turns


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
