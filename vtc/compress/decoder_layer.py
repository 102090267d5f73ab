"""Llama's decoder layer, whose tokens may come in two goes: what came first is kept as keys and
values."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vtc.compress.layers import draw_normal, linear_flops

EPS = 1e-5
THETA = 10_000.0
STD = 0.02


class KeysValues(NamedTuple):
    """Of S tokens, rotated to their positions."""

    keys: Float[Tensor, "B H S E"]
    values: Float[Tensor, "B H S E"]


class RmsNorm(nn.Module):
    """x / sqrt(mean x^2 + eps), in fp32, times a weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, states: Float[Tensor, "B R D"]) -> Float[Tensor, "B R D"]:
        """Normalise each token."""
        whole = states.float()
        scaled = whole * torch.rsqrt(whole.square().mean(-1, keepdim=True) + EPS)
        return self.weight * scaled.to(states.dtype)


class DecoderLayer(nn.Module):
    """Llama (2302.13971), section 2.2: RMSNorm, rotary self-attention, SwiGLU; no biases.

    Layers are not called as Llama calls them (q_proj, ...), so that LoRA does not take them for
    the LLM's.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.ffn_norm = RmsNorm(width), RmsNorm(width)
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(
        self,
        states: Float[Tensor, "B R D"],
        positions: Int[Tensor, "*A R"],
        past: KeysValues | None = None,
        seen: Bool[Tensor, "B 1 T S"] | Bool[Tensor, "T S"] | None = None,
        last: int | None = None,
    ) -> tuple[Float[Tensor, "B T D"], KeysValues]:
        """The states of the `last` T tokens (default: all R), and keys and values of the R.

        `past` are those of tokens before them; `seen` says which of all S keys each of the T
        attends to. Without it that is causal, and there is no past.
        """
        normed = self.norm(states)
        angles = rotations(positions, states.shape[-1] // self.heads, states.dtype)
        own = KeysValues(
            rotated(self._split(self.key(normed)), angles), self._split(self.value(normed))
        )
        n = states.shape[1] if last is None else last
        cosines, sines = (wave[..., -n:, :] for wave in angles)
        query = rotated(self._split(self.query(normed[:, -n:])), (cosines, sines))
        keys, values = own
        if past is not None:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(past, own, strict=True))
        found = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=seen, is_causal=seen is None
        )
        states = states[:, -n:] + self.out(found.transpose(1, 2).flatten(2))
        normed = self.ffn_norm(states)
        return states + self.down(F.silu(self.gate(normed)) * self.up(normed)), own

    def _split(self, states: Float[Tensor, "B R D"]) -> Float[Tensor, "B H R E"]:
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def flops(self, tokens: int, keys: int, last: int | None = None) -> int:
        """FLOPs of `tokens`, the `last` of which go on (default: all), over `keys` in all."""
        n = tokens if last is None else last
        on = linear_flops(self.query, self.out, self.gate, self.up, self.down)
        attention = 4 * n * keys * self.query.in_features
        return tokens * linear_flops(self.key, self.value) + n * on + attention

    def reset_parameters(self) -> None:
        """Normal weights of deviation 0.02, as transformers' Llama; norms of 1."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                draw_normal(part.weight, std=STD)
            elif isinstance(part, RmsNorm):
                nn.init.ones_(part.weight)


Angles = tuple[Float[Tensor, "*A R E"], Float[Tensor, "*A R E"]]


def rotations(positions: Int[Tensor, "*A R"], width: int, dtype: torch.dtype) -> Angles:
    """Cosines and sines of RoPE (2104.09864) for heads of a width, the halves side by side."""
    halves = torch.arange(0, width, 2, device=positions.device).float() / width
    angles = positions.unsqueeze(-1).float() * (1.0 / THETA**halves)
    whole = torch.cat([angles, angles], dim=-1)
    return whole.cos().to(dtype), whole.sin().to(dtype)


def rotated(states: Float[Tensor, "B H R E"], angles: Angles) -> Float[Tensor, "B H R E"]:
    """Heads turned to their tokens' positions."""
    cosines, sines = (wave.unsqueeze(-3) for wave in angles)
    first, second = states.chunk(2, dim=-1)
    return states * cosines + torch.cat([-second, first], dim=-1) * sines
