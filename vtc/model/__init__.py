"""The vision-language model; importing this registers it with transformers' Auto classes."""

from vtc.model.config import VtcConfig
from vtc.model.modeling import VtcForConditionalGeneration, VtcModel
from vtc.model.processor import VtcProcessor

__all__ = ["VtcConfig", "VtcForConditionalGeneration", "VtcModel", "VtcProcessor"]
