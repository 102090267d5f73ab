"""One question to a loaded run: its prompt, and the answer as it is generated."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.generation.streamers import TextStreamer

from vtc.compress.serving import check_served
from vtc.data.conversations import IMAGE
from vtc.data.labels import TurnEncoder, expand_images
from vtc.errors import InputError
from vtc.model.backbones import module_dtype
from vtc.model.generation import Generated
from vtc.model.processor import VtcProcessor
from vtc.model.run import Run


def prompt_ids(processor: VtcProcessor, text: str, n_images: int) -> list[int]:
    """Token ids of a user's turn about images, each as V image tokens, as training saw turns.

    Images go where the text has its `<image>` marks; without marks, each takes a line of its own
    before the text, or behind it if the run was trained so. Raises InputError if there are marks,
    but not as many as images, and for a tokenizer without a chat template.
    """
    marks = text.count(IMAGE)
    if marks not in (0, n_images):
        raise InputError(f"the question has {marks} marks {IMAGE}, but {n_images} images are given")
    if not marks:
        text = f"{IMAGE}\n" * n_images + text
    encoder = TurnEncoder(processor.tokenizer, "chat", processor.query_position)
    row = encoder.prompt([{"role": "user", "text": text}])
    expanded, _ = expand_images(row, row, encoder.image_token_id, processor.visual_tokens)
    return expanded.tolist()


def image_inputs(run: Run, question: str, images: Sequence[Any]) -> dict[str, Tensor]:
    """What the model takes for PIL images about which a question is asked, none for none."""
    if not images:
        return {}
    values = run.processor.image_processor(list(images), return_tensors="pt")["pixel_values"]
    asked = {}
    if run.processor.query_scope is not None:
        asked = run.processor.query_inputs([question] * len(images))
    device = run.model.device
    return {
        "pixel_values": values.to(device, module_dtype(run.model)),
        **{name: part.to(device) for name, part in asked.items()},
    }


def serve_at(run: Run, visual_tokens: int | None) -> None:
    """Let a loaded run show images as `visual_tokens` tokens from now on; None is its own V.

    A run that repeats its visual tokens goes on doing so.

    An elastic compressor serves any V up to its own that it supports. Raises InputError for
    another V of it, and for another V than its own of a compressor that serves one.
    """
    compressor = run.model.compressor
    asked = compressor.visual_tokens if visual_tokens is None else visual_tokens
    check_served(run.folder, run.manifest, asked)
    compressor.serve(asked)
    run.processor.visual_tokens = asked * run.model.config.repeat_visual_tokens


@torch.inference_mode()
def ask(
    run: Run,
    question: str,
    images: Sequence[Any],
    max_new_tokens: int,
    on_text: Callable[[str], object],
) -> Generated:
    """Answer a question about PIL images greedily; `on_text` is told each piece as it comes.

    The pieces, joined, are the answer with the white space around it that `Generated` has lost.
    Raises InputError as `prompt_ids`.
    """
    model = run.model
    seen = image_inputs(run, question, images)
    ids = torch.tensor([prompt_ids(run.processor, question, len(images))], device=model.device)
    generated = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        **seen,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        streamer=_Pieces(run.processor.tokenizer, on_text),
    )
    new = generated[0, ids.shape[1] :]
    text = run.processor.tokenizer.decode(new, skip_special_tokens=True)
    return Generated(text.strip(), len(new))


class _Pieces(TextStreamer):
    """Hands whole pieces of the answer on, in place of printing them."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called by transformers with text that later tokens cannot change."""
        if text:
            self.on_text(text)
