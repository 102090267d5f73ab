"""How a picture that is not square becomes the square that an encoder reads.

LLaVA-1.5 calls its ways `image_aspect_ratio`; its names and ours:

- `crop`: the shorter side resized, the middle cut out; what CLIP's processor does by itself, and
  LLaVA with `image_aspect_ratio` unset ("square"), as in its stage 1.
- `pad`: LLaVA's "pad", as in its stage 2: the whole picture in the middle of a square canvas of
  colour int(255 * image_mean), and then the encoder's own processor.
- `square`: the whole picture stretched to a square; what SigLIP's processors do by themselves.
"""

from typing import Any, Literal

from vtc.errors import InputError

ImageMode = Literal["pad", "crop", "square"]


def with_mode(image_processor: Any, mode: ImageMode | None) -> Any:
    """An image processor of the same size and normalisation that works in `mode`.

    None leaves it as it is. The result is a processor of transformers, so that it is saved and
    loaded with a run, and its settings (and with them `preprocessing_hash`) say what it does.

    Raises InputError if the processor does not name the size that it makes.
    """
    if mode is None:
        return image_processor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    settings = image_processor.to_dict()
    settings.pop("image_processor_type", None)
    kind = type(image_processor)
    if mode == "pad":
        # Llava's processor pads, and then resizes and crops by the settings of the encoder's own.
        kind = LlavaImageProcessorPil
        crops = bool(settings.get("do_center_crop"))
        changes: dict[str, Any] = {"do_pad": True, "do_center_crop": crops}
        if not crops:
            changes["crop_size"] = settings.get("size")
        return kind.from_dict({**settings, **changes})
    side = _side(settings)
    whole = {"height": side, "width": side}
    if settings.pop("do_pad", False):
        settings["do_pad"] = False
    if mode == "square":
        changes = {"size": whole, "do_center_crop": False}
    else:
        if "do_center_crop" not in settings:
            kind = LlavaImageProcessorPil
        changes = {"size": {"shortest_edge": side}, "do_center_crop": True, "crop_size": whole}
    return kind.from_dict({**settings, **changes})


def _side(settings: dict[str, Any]) -> int:
    """The side of the square that a processor with these settings makes, in pixels."""
    size = settings.get("crop_size") if settings.get("do_center_crop") else settings.get("size")
    sides = {value for value in dict(size or {}).values() if value}
    if len(sides) != 1:
        raise InputError(
            f"--image-mode: the encoder's image processor makes no square of one size ({size}); "
            "leave the option out"
        )
    return int(sides.pop())
