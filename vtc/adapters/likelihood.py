"""How likely a run finds a given answer."""

from collections.abc import Sequence
from typing import Any

import torch

from vtc.model.asking import image_inputs, prompt_ids
from vtc.model.run import Run


@torch.inference_mode()
def answer_loss(run: Run, question: str, images: Sequence[Any], answer: str) -> tuple[float, bool]:
    """The mean negative log-likelihood a token of an answer, in nats, and whether it is greedy.

    Greedy: at each of its tokens the run finds no other more likely. Raises ValueError for an
    answer without tokens, InputError as `prompt_ids`.
    """
    prompt = prompt_ids(run.processor, question, len(images))
    tokens = run.processor.tokenizer(answer, add_special_tokens=False).input_ids
    if not tokens:
        raise ValueError("the likelihood of an empty answer is asked for")
    device = run.model.device
    ids = torch.tensor([[*prompt, *tokens]], device=device)
    # The logits at a position are of the token behind it.
    logits = run.model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        logits_to_keep=len(tokens) + 1,
        **image_inputs(run, question, images),
    ).logits[0, :-1]
    wanted = ids[0, len(prompt) :]
    loss = torch.nn.functional.cross_entropy(logits.float(), wanted)
    return float(loss), bool((logits.argmax(-1) == wanted).all())
