"""A loaded model's compressor gives way to another: with fresh weights, or with its own."""

import torch

from vtc.model.config import VtcConfig
from vtc.model.modeling import VtcForConditionalGeneration, build_compressor

_OWN = (
    *("compressor", "compressor_settings"),
    *("visual_tokens", "repeat_visual_tokens", "image_seq_length"),
)
"""What of a config is the compressor's."""


def give_compressor(model: VtcForConditionalGeneration, config: VtcConfig) -> None:
    """Put the compressor that a config names where a model's own is, if it is another.

    Its weights are fresh, of the type and on the device of those that go.
    """
    if not _take_over(model, config):
        return
    weight = next(model.compressor.parameters())
    compressor = build_compressor(model.config)
    model.model.multi_modal_projector = compressor.to(weight.device, weight.dtype)


def exchange_compressor(model: VtcForConditionalGeneration, config: VtcConfig) -> None:
    """As `give_compressor`, but the new one has the weights of the one that goes, uncopied.

    Raises RuntimeError if these are not weights of it.
    """
    if not _take_over(model, config):
        return
    with torch.device("meta"):
        compressor = build_compressor(model.config)
    compressor.load_state_dict(model.compressor.state_dict(), assign=True)
    model.model.multi_modal_projector = compressor.train(model.compressor.training)


def _take_over(model: VtcForConditionalGeneration, config: VtcConfig) -> bool:
    """Set a model's config to another's compressor; whether that changes anything."""
    own = {name: getattr(config, name) for name in _OWN}
    if all(getattr(model.config, name) == value for name, value in own.items()):
        return False
    for name, value in own.items():
        setattr(model.config, name, value)
    return True
