"""The V of each step of an elastic training, and its batches.

Matryoshka Query Transformer (2405.19315), section 3: a step has one V, drawn from the set, each as
likely as another. Matryoshka Multimodal Models (2405.17430), section 3: a step trains every V of
the set, and its loss is the mean of theirs. The V of a step follows from seed and step alone, so
that it is the same for all of the step's batches, in every process, and after a resume.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from vtc.compress.choices import listed
from vtc.data.collate import Collator
from vtc.model.turns import trained_at
from vtc.train.log import FACTS, BatchFacts, Described

PARTS = "parts"
"""A batch's parts, each a batch of one V."""

_STREAM = 0x56  # Apart from the other draws of a seed, which begin with an epoch.
_IMAGES = ("pixel_values", "vision_levels")
_COUNTED = ("labels", "shift_labels")


def drawn(trained: Sequence[int], seed: int, step: int) -> int:
    """The V of a step (from 0): one of `trained`, uniformly."""
    random = np.random.default_rng([_STREAM, seed, step])
    return trained[int(random.integers(len(trained)))]


class Turns:
    """Collates the rows of an elastic training once it is known which step they belong to.

    A data loader reads ahead, so what it calls this for are rows alone; `batches` makes batches of
    them. A batch holds `visual_tokens`, which the model's forward takes; with `together` it is one
    of PARTS, a batch for each V with the same images, and `labels` that count for all of them.
    """

    def __init__(self, collator: Collator, trained: Sequence[int], together: bool, seed: int):
        self.collator = collator
        self.trained = tuple(trained)
        self.together = together
        self.seed = seed
        times = collator.n_visual // max(self.trained)
        self._at = {v: _with(collator, n_visual=v * times) for v in self.trained}

    def __call__(self, indices: Sequence[int]) -> dict[str, Any]:
        """The rows of a batch."""
        return {"rows": tuple(indices)}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose questions are drawn."""
        for collator in self._at.values():
            collator.set_epoch(epoch)

    def of_step(self, step: int) -> tuple[int, ...]:
        """The V that a step trains."""
        return self.trained if self.together else (drawn(self.trained, self.seed, step),)

    def __str__(self) -> str:
        """What the steps train, in words."""
        how = "V = " if self.together else "one V drawn of "
        return f"each step at {how}{listed(self.trained)}"

    def batches(self, rows: Iterable[dict[str, Any]], step: int) -> Iterator[dict[str, Any]]:
        """The batches of a step, each with its FACTS, one at a time as they are asked for."""
        for batch in rows:
            parts = list(self._parts(batch["rows"], self.of_step(step)))
            yield _joined(parts) if self.together else parts[0]

    def _parts(self, rows: Sequence[int], of: Sequence[int]) -> Iterator[dict[str, Any]]:
        images: dict[str, Any] = {}
        for number, visual_tokens in enumerate(of):
            collator = self._at[visual_tokens]
            # The images are the same at every V: they are read once.
            own = collator if number == 0 else _with(collator, images=None)
            part = {**Described(own)(rows), **images}
            images = {name: part[name] for name in _IMAGES if name in part}
            if images:
                part["visual_tokens"] = visual_tokens
            yield part


def turns_of(model: Any, collator: Collator, seed: int) -> Turns | None:
    """What an elastic training of a model collates with; None where it is trained at one V."""
    core = _core(model)
    trained = trained_at(core)
    if len(trained) == 1:
        return None
    return Turns(collator, trained, core.compressor.together, seed)


def encoded_once(model: Any, parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parts of a batch whose images have been through the frozen encoder, all parts' together.

    Those with features or without images, or of an encoder that trains, stay as they are.
    """
    core, pixels = _core(model), parts[0].get("pixel_values")
    if pixels is None or not core.config.freeze_vision:
        return list(parts)
    weight = next(core.model.vision_tower.parameters())
    levels = core.model.encode(pixels.to(weight.device))
    rest = [{k: v for k, v in part.items() if k != "pixel_values"} for part in parts]
    return [{**part, "vision_levels": levels} for part in rest]


def _core(model: Any) -> Any:
    """The vtc model itself, of one that LoRA is put on."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _with(collator: Collator, **changes: Any) -> Collator:
    """A collator that differs in some settings and shares its rows."""
    other = copy.copy(collator)
    vars(other).update(changes)
    return other


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Parts as one batch: the labels of all, and what it is made of."""
    facts = [part.pop(FACTS) for part in parts]
    n_tokens = sum(one.n_tokens for one in facts)
    return {
        **{name: torch.cat([part[name] for part in parts]) for name in _COUNTED},
        PARTS: list(parts),
        FACTS: BatchFacts(facts[0].rows, n_tokens, facts[0].n_images),
    }
