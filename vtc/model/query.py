"""The LLM's vector of a question, for compressors that read it: its last token's last state."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vtc.compress.written import identity, same, sample

INPUTS = ("query_ids", "query_mask", "query_vectors", "query_images")
"""What a batch says of questions: see `VtcModel.compress`."""

KEPT_BYTES = 2**28
"""Vectors of a frozen LLM that are kept; past it, all are forgotten."""

Text = tuple[int, ...]


class _Kept:
    """Vectors of an LLM's texts, as long as its weights are what they were."""

    def __init__(self) -> None:
        self.state: Any = None
        self.numbers: list[Tensor] = []
        self.vectors: dict[Text, Tensor] = {}


Function = TypeVar("Function", bound=Callable)


def _uncompiled(function: Function) -> Function:
    """`torch.compiler.disable`, which has no types: texts have every length there is."""
    return torch.compiler.disable(function)  # type: ignore[return-value]


_KEPT: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()


@_uncompiled
@torch.no_grad()
def query_vectors(
    llm: nn.Module, query_ids: Int[Tensor, "Q T"], query_mask: Int[Tensor, "Q T"] | None = None
) -> Float[Tensor, "Q text_width"]:
    """The vector of each question (2411.03312, section 4), without gradients.

    Equal questions are read once. Those of an LLM of which nothing trains are kept for all later
    calls: they then do not depend on what else is in the batch, so that on the CPU, where a
    resumed training must go on bit for bit, each is read alone.
    """
    mask = torch.ones_like(query_ids) if query_mask is None else query_mask
    pairs = zip(query_ids.tolist(), mask.tolist(), strict=True)
    texts = [tuple(t for t, own in zip(*pair, strict=True) if own) for pair in pairs]
    frozen = not any(weight.requires_grad for weight in llm.parameters())
    known = _kept(llm, query_ids.device) if frozen else {}
    fresh = [text for text in dict.fromkeys(texts) if text not in known]
    alone = frozen and query_ids.device.type == "cpu"
    read = dict(zip(fresh, read_texts(llm, fresh, 1 if alone else len(fresh)), strict=True))
    found = torch.stack([read[text] if text in read else known[text] for text in texts])
    if (len(known) + len(read)) * found[0].nbytes > KEPT_BYTES:
        known.clear()
    known.update(read)
    return found


@torch.no_grad()
def read_texts(
    llm: nn.Module, texts: Sequence[Text], batch_size: int
) -> list[Float[Tensor, " text_width"]]:
    """The vector of each text (token ids), so many of similar length at a time.

    The LLM reads as when it answers: without dropout.
    """
    places = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found: dict[int, Tensor] = {}
    training = llm.training
    llm.eval()
    try:
        for start in range(0, len(places), max(batch_size, 1)):
            some = places[start : start + batch_size]
            found.update(
                zip(some, _last_states(llm, [texts[place] for place in some]), strict=True)
            )
    finally:
        llm.train(training)
    return [found[place] for place in range(len(texts))]


def _last_states(llm: Any, texts: Sequence[Text]) -> Float[Tensor, "Q text_width"]:
    """Texts padded on the right: under causal attention nothing sees the padding."""
    longest = max(map(len, texts))
    device = llm.get_input_embeddings().weight.device
    ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], device=device)
    last = torch.tensor([len(text) - 1 for text in texts], device=device)
    kind = device.type
    # Older torch keeps the 16-bit copies that autocast makes here, which have no way back to the
    # weights, for the pass that trains them.
    with torch.autocast(
        kind,
        dtype=torch.get_autocast_dtype(kind),
        enabled=torch.is_autocast_enabled(kind),
        cache_enabled=False,
    ):
        states = llm(input_ids=ids, use_cache=False).last_hidden_state
    return states[torch.arange(len(texts), device=device), last]


def _kept(llm: nn.Module, device: torch.device) -> dict[Text, Tensor]:
    """What is kept of an LLM; nothing, if a weight has been written to or moved since."""
    kept = _KEPT.setdefault(llm, _Kept())
    state, numbers = identity(llm.parameters(), device.type), sample(llm.parameters())
    if kept.state != state or not same(numbers, kept.numbers):
        kept.state, kept.numbers, kept.vectors = state, numbers, {}
    return kept.vectors
