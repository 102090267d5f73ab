"""What a checkpoint of the original LLaVA code calls the tensors of transformers' Llava.

There the LLM's tensors stand in `model.` and the projector's and the encoder's among them; what a
training wraps the model in (DDP, PEFT, FSDP, torch.compile) puts more before that.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vtc.errors import InputError

TOWER = "model.vision_tower."
PROJECTOR = "model.multi_modal_projector."
_TEXT = "model.language_model."
_LAYERS = {"0.": "linear_1.", "2.": "linear_2."}
"""LLaVA-1.5's projector is an nn.Sequential."""
_INSIDE = re.compile(r"(_orig_mod|_fsdp_wrapped_module)\.")


@dataclass(frozen=True)
class Names:
    """Of one checkpoint: what stands before its projector's weights; None where it has none."""

    projector: str | None

    @property
    def outer(self) -> str:
        """What stands before all names."""
        before = re.sub(r"\w+\.$", "", self.projector or "")
        return re.sub(r"(^|\.)model\.$", r"\1", before)

    def is_projector(self, name: str) -> bool:
        """Whether a tensor of the checkpoint is one of its projector's."""
        return self.projector is not None and name.startswith(self.projector)

    def own(self, name: str) -> str:
        """The Llava's name of a tensor of the checkpoint; one of its projector as the MLP's."""
        if self.is_projector(name):
            place = name.removeprefix(self.projector or "")
            return PROJECTOR + _LAYERS.get(place[:2], place[:2]) + place[2:]
        plain = _INSIDE.sub("", name.removeprefix(self.outer))
        for pattern, new in (
            (r"^model\.vision_tower\.vision_tower\.(vision_model\.)?", TOWER),
            (r"^model\.(?!vision_tower\.|multi_modal_projector\.)", _TEXT),
        ):
            plain, count = re.subn(pattern, new, plain)
            if count:
                break
        return plain

    def theirs(self, own: str) -> str:
        """The checkpoint's name of a tensor of the Llava."""
        if own.startswith(PROJECTOR):
            place = own.removeprefix(PROJECTOR)
            for number, layer in _LAYERS.items():
                place = place.replace(layer, number, 1) if place.startswith(layer) else place
            return (self.projector or f"{self.outer}model.mm_projector.") + place
        if own.startswith(TOWER):
            return f"{self.outer}model.vision_tower.vision_tower.{own.removeprefix(TOWER)}"
        return self.outer + re.sub(f"^{re.escape(_TEXT)}", "model.", own)

    def all_own(self, names: Iterable[str]) -> dict[str, str]:
        """The Llava's name of each; raises InputError where two are one tensor's."""
        found: dict[str, str] = {}
        for name in names:
            first = found.setdefault(self.own(name), name)
            if first != name:
                raise InputError(f"{first} and {name} are the same tensor; leave one of them")
        return found
