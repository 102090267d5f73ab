"""Visual tokens dropped between the layers of an LLM: from its states, and from its KV cache.

A layer is handed the tokens that are left, with their own positions and a mask of their own; keys
and values of the others are never made there. Each row of a batch keeps its own tokens. What a
later pass over the same cache sees is what the cache holds: all tokens in the layers before a
drop, those that were kept in the layers behind it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_causal_mask

from vtc.compress.inllm import InLlm
from vtc.compress.interface import Compressor
from vtc.errors import InputError
from vtc.model.looking import Angles, last_places, looked_at, picked, queries_and_keys
from vtc.model.pruned_cache import PrunedLayer, layer_of


def check_llm(config: Any) -> None:
    """Raise InputError for an LLM with layers that do not attend to every token before.

    `config` is the LLM's. A window counts tokens, and would reach farther where some are gone.
    """
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds and getattr(config, "use_sliding_window", True):
        kinds = {"sliding_window"} if getattr(config, "sliding_window", None) else set()
    if kinds - {"full_attention"}:
        raise InputError(
            f"an LLM of type {config.model_type} has layers of {', '.join(sorted(kinds))}, between "
            "which no visual tokens can be dropped; use a compressor before the LLM, such as "
            "divprune"
        )


def check_pruning(compressor: Compressor, config: Any) -> None:
    """Raise InputError where a compressor drops tokens in an LLM (its config) that it cannot.

    That is one of too few layers, too, and one of another kind of attention.
    """
    if isinstance(compressor, InLlm):
        check_llm(config)
        compressor.schedule(config.num_hidden_layers)


@contextmanager
def pruning(
    model: Any, ids: Int[Tensor, "B T"] | None, mask: Int[Tensor, "B K"] | None, shows: bool
) -> Iterator[None]:
    """Let a `VtcModel`'s LLM drop visual tokens, as its compressor says, in the pass inside.

    `ids` are the T new tokens, images whole; `mask` is 0 where one of K tokens, the new ones last,
    is padding. Only a pass that `shows` images has some: an answer may have their token as a word.
    Of the dropped tokens no states come out, but zeros. Raises InputError for an LLM
    that cannot do it, and ValueError for a pass that cannot.
    """
    compressor, llm = model.compressor, model.language_model
    if not isinstance(compressor, InLlm):
        yield
        return
    if ids is None:
        raise ValueError("input_ids say where images are; without them nothing can be dropped")
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2):
        raise ValueError("visual tokens are dropped under a mask [B, K] of padding, not of pairs")
    if model.config.repeat_visual_tokens > 1:
        raise InputError(
            f"{model.config.compressor} drops visual tokens that are there once; leave "
            "--repeat-visual-tokens out"
        )
    if llm.training and getattr(llm, "gradient_checkpointing", False):
        raise ValueError("visual tokens are not dropped under gradient checkpointing")
    visual = ids == model.config.image_token_id
    handles = _Pass(llm, compressor, visual, mask, shows).hooks()
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Pass:
    """One pass of the LLM: the tokens that are left of it, from layer to layer.

    `here` [B, R] are those of R places that are tokens and no padding, `visual` those of images;
    `places` [B, R] is where they stood among the T new ones. `past` [B, P] says as `here` which
    places of the cache, in the layer at hand, are tokens of earlier passes.
    """

    def __init__(
        self,
        llm: Any,
        compressor: InLlm,
        visual: Bool[Tensor, "B T"],
        mask: Int[Tensor, "B K"] | None,
        shows: bool,
    ) -> None:
        self.llm, self.visual, self.mask = llm, visual, mask
        self.by_next, self.packs = compressor.ranked_by_next, compressor.packs
        schedule = compressor.schedule(len(llm.layers))
        self.kept = {drop.layer: drop.kept for drop in schedule.drops}
        self.tokens, self.n_new = schedule.n_tokens, visual.shape[1]
        # Generating a token waits for no GPU to say so.
        self.drops = shows and bool(visual.any())
        if self.drops and bool((visual.sum(1) % self.tokens).any()):
            raise ValueError(f"the {self.tokens} tokens of an image must be read in one pass")
        self.here = self.past = self.whole = visual
        self.places: Int[Tensor, "B R"] = visual.long()
        self.looked: Any = None
        self.query: Float[Tensor, "B H 1 E"] | None = None
        self.given: dict[str, Any] = {}

    def hooks(self) -> list[Any]:
        """Hooks on the LLM and the layers concerned."""
        if not self.kept:
            return []
        start = min(self.kept) - (not self.by_next)
        layers = [
            layer.register_forward_pre_hook(self._at(number), with_kwargs=True)
            for number, layer in enumerate(self.llm.layers)
            if number >= start
        ]
        begin = self.llm.register_forward_pre_hook(self._begin, with_kwargs=True)
        return [begin, *layers, self.llm.register_forward_hook(self._end)]

    def _begin(self, llm: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        """All tokens are there."""
        cache, (batch, n_new) = kwargs.get("past_key_values"), self.visual.shape
        n_past = 0 if cache is None else int(cache.get_seq_length())
        mask = self.visual.new_ones(batch, n_past + n_new) if self.mask is None else self.mask
        self.whole, self.here = mask.to(self.visual.device).bool().split([n_past, n_new], dim=1)
        self.past = self.whole
        self.places = torch.arange(n_new, device=self.visual.device).expand(batch, -1)

    def _at(self, number: int) -> Any:
        def enter(layer: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            states = args[0] if args else kwargs.pop("hidden_states")
            states, told = self._enter(number, layer, states, kwargs)
            return (states, *args[1:]), told

        return enter

    def _enter(
        self, number: int, layer: Any, states: Float[Tensor, "B R D"], kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """The states that a layer is given, and what it is told of them."""
        cache: Any = kwargs.get("past_key_values")
        held = layer_of(cache, number)
        if number in self.kept:
            past = held.valid if isinstance(held, PrunedLayer) else self.whole
            if self.drops:
                keep = self._chosen(number, layer, states, past, {**kwargs, **self.given})
                states = self._without(keep, states)
            if self.drops or isinstance(held, PrunedLayer):
                self.past = past
                self.given = self._told(number, states, kwargs)
        kwargs = {**kwargs, **self.given}
        if self.given and held is not None:
            valid = torch.cat([self.past, self.here], dim=1)
            cache.layers[number] = PrunedLayer.of(held, valid)
        if self.drops and not self.by_next and number + 1 in self.kept:
            rows = last_places(self.here)
            angles = _picked_angles(kwargs["position_embeddings"], rows)
            self.query = queries_and_keys(layer, picked(states, rows), angles)[0]
            # Where nothing keeps this layer's keys, a cache of its own does, for the next one.
            self.looked = DynamicCache() if cache is None else cache
            kwargs["past_key_values"] = self.looked
        return states, kwargs

    @torch.no_grad()
    def _chosen(
        self,
        number: int,
        layer: Any,
        states: Float[Tensor, "B R D"],
        past: Bool[Tensor, "B P"],
        kwargs: dict[str, Any],
    ) -> Bool[Tensor, "B R"]:
        """The tokens that go on into a layer: text, and of each image those looked at most.

        A row's last token is never dropped, as the next one is told from its state: where a prompt
        ends with an image, it is one of those that the image keeps.
        """
        if self.by_next:
            queries, keys = queries_and_keys(layer, states, kwargs["position_embeddings"])
            _, heads, _, width = queries.shape
            rows = last_places(self.here)[:, None, :, None].expand(-1, heads, -1, width)
            query = queries.gather(2, rows)
            if past.shape[1]:
                keys = torch.cat([kwargs["past_key_values"].layers[number].keys, keys], dim=2)
        else:
            past, query = self.past, self.query
            layer, keys = self.llm.layers[number - 1], self.looked.layers[number - 1].keys
        assert query is not None
        valid = torch.cat([past, self.here], dim=1)
        scores = looked_at(query, keys, valid, layer.self_attn.scaling)[:, past.shape[1] :]
        last = torch.zeros_like(self.here).scatter(1, last_places(self.here), value=True)
        scores = scores.masked_fill(last, torch.inf)
        rows, columns = (n.reshape(-1, self.tokens) for n in self.visual.nonzero(as_tuple=True))
        ranked = scores[rows, columns].sort(dim=1, descending=True, stable=True).indices
        best, self.tokens = ranked[:, : self.kept[number]], self.kept[number]
        keep = self.here & (~self.visual | last)
        keep[rows.gather(1, best), columns.gather(1, best)] = True
        return keep

    def _without(
        self, keep: Bool[Tensor, "B R"], states: Float[Tensor, "B R D"]
    ) -> Float[Tensor, "B S D"]:
        """The states of the tokens that are kept, each row's at the right, in their order."""
        width = int(keep.sum(1).max())
        order = keep.int().sort(dim=1, stable=True).indices[:, keep.shape[1] - width :]
        self.here = keep.gather(1, order)
        self.visual = self.visual.gather(1, order) & self.here
        self.places = self.places.gather(1, order)
        return picked(states, order)

    def _told(
        self, number: int, states: Float[Tensor, "B R D"], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Positions and mask of the tokens that are left, up to the next drop."""
        valid = torch.cat([self.past, self.here], dim=1)
        if self.packs:
            positions = (valid.cumsum(1) - 1).clamp(min=0)[:, -states.shape[1] :]
            angles = self.llm.rotary_emb(states, positions)
        else:
            positions = kwargs["position_ids"].expand(len(states), -1).gather(1, self.places)
            angles = _picked_angles(kwargs["position_embeddings"], self.places)
        mask = create_causal_mask(
            config=self.llm.config,
            inputs_embeds=states,
            attention_mask=valid,
            past_key_values=kwargs.get("past_key_values"),
            position_ids=None,
            layer_idx=number,
        )
        return {"attention_mask": mask, "position_ids": positions, "position_embeddings": angles}

    def _end(self, llm: Any, args: tuple, output: Any) -> Any:
        """The states of the tokens that are left where they stood, zeros for the others."""
        if self.drops:
            states = output.last_hidden_state
            states = states * self.here.unsqueeze(-1)
            places = self.places.unsqueeze(-1).expand_as(states)
            blank = states.new_zeros(len(states), self.n_new, states.shape[-1])
            output.last_hidden_state = blank.scatter(1, places, states)
        return output


def _picked_angles(angles: Angles, places: Int[Tensor, "B R"]) -> Angles:
    return picked(angles[0], places), picked(angles[1], places)
