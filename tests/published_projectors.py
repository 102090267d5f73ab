"""Projectors with the names and the computation of published checkpoints, written plainly.

Windows are folded into the batch and torch's nn.MultiheadAttention does the rest; widths and grid
are arguments here, where the publications have numbers. They share nothing with vtc.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mlp(width_in: int, width: int, norm: bool = False) -> nn.Sequential:
    layers = [nn.Linear(width_in, width), nn.GELU(), nn.Linear(width, width)]
    return nn.Sequential(*layers, *([nn.LayerNorm(width, eps=1e-6)] if norm else []))


def folded(patches: Tensor, count: int) -> Tensor:
    """[B, N, D] -> [B count count, s s, D]: the windows of a square grid, each its own batch."""
    batch, number, width = patches.shape
    side = math.isqrt(number)
    size = side // count
    image = patches.transpose(1, 2).reshape(batch, width, side, side)
    cut = F.unfold(image, size, stride=size).reshape(batch, width, size * size, count * count)
    return cut.permute(0, 3, 2, 1).reshape(batch * count * count, size * size, width)


class TokenPacker(nn.Module):
    """Takes (single level, all levels side by side)."""

    def __init__(self, width: int, text: int, scale: int, heads: int = 8) -> None:
        super().__init__()
        self.scale = scale
        self.q_proj_1 = nn.Linear(width, width, bias=False)
        self.k_proj_1, self.v_proj_1 = mlp(4 * width, width), mlp(4 * width, width)
        self.ln_q_1, self.ln_k_1, self.ln_v_1 = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.clip_attn = nn.MultiheadAttention(width, heads)
        self.mlp = mlp(width, text)

    def forward(self, given: tuple[Tensor, Tensor]) -> Tensor:
        single, several = given
        batch, number, width = single.shape
        side = math.isqrt(number)
        count = side // self.scale
        image = single.float().transpose(1, 2).reshape(batch, width, side, side)
        small = F.interpolate(image, size=(count, count), mode="bilinear")
        coarse = small.flatten(2).transpose(1, 2).to(single.dtype)
        query = self.ln_q_1(self.q_proj_1(coarse)).reshape(1, batch * count * count, width)
        key = folded(self.ln_k_1(self.k_proj_1(several)), count).transpose(0, 1)
        value = folded(self.ln_v_1(self.v_proj_1(several)), count).transpose(0, 1)
        found = self.clip_attn(query, key, value)[0]
        return self.mlp(found.reshape(batch, count * count, width))


class QueCC(nn.Module):
    """Takes (all levels side by side, the question's vector [B, 1, text], single level)."""

    def __init__(self, width: int, text: int, size: int, heads: int = 8) -> None:
        super().__init__()
        self.text_projection = nn.Sequential(nn.Linear(text, width), nn.LayerNorm(width, eps=1e-6))
        self.q_proj = mlp(width, width, norm=True)
        self.k_proj, self.v_proj = (mlp(4 * width, width, norm=True) for _ in range(2))
        self.q_downsample = nn.Conv2d(width, width, size, stride=size, groups=width)
        self.clip_attn = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, given: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        several, asked, single = given
        batch, number, width = single.shape
        side = math.isqrt(number)
        told = self.q_proj(single + self.text_projection(asked))
        coarse = self.q_downsample(told.transpose(1, 2).reshape(batch, width, side, side))
        count = coarse.shape[-1]
        query = coarse.flatten(2).transpose(1, 2).reshape(batch * count * count, 1, width)
        key, value = folded(self.k_proj(several), count), folded(self.v_proj(several), count)
        return self.clip_attn(query, key, value)[0].reshape(batch, count * count, width)


def quecc(width: int, text: int, size: int, heads: int = 8) -> nn.Sequential:
    """With the MLP, as it stands in a model: the layers 0, 1 and 3."""
    return nn.Sequential(QueCC(width, text, size, heads), *mlp(width, text))


class Mqt(nn.Module):
    """Queries and keys with fixed positions; the keys are nothing else."""

    def __init__(self, width: int, text: int, side: int = 16, heads: int = 16) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(side * side, width))
        self.pos_embed = nn.Parameter(torch.zeros(side * side, width), requires_grad=False)
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_q, self.ln_k, self.ln_v = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.proj = nn.Parameter(torch.zeros(width, text))

    def forward(self, patches: Tensor, num_visual_tokens: int) -> Tensor:
        batch, number, width = patches.shape
        own, side = math.isqrt(len(self.query)), math.isqrt(number)
        image = self.pos_embed.float().reshape(1, own, own, width).permute(0, 3, 1, 2)
        places = F.interpolate(image, size=(side, side), mode="bicubic", align_corners=False)
        places = places.permute(0, 2, 3, 1).reshape(1, number, width).to(patches.dtype)
        query = (self.query + self.pos_embed)[:num_visual_tokens]
        found = self.attn(
            self.ln_q(query.unsqueeze(1).repeat(1, batch, 1)),
            self.ln_k(places.repeat(batch, 1, 1).transpose(0, 1)),
            self.ln_v(patches.transpose(0, 1)),
        )[0]
        return found.transpose(0, 1) @ self.proj


class M3(nn.Sequential):
    """LLaVA-1.5's MLP, then means of windows."""

    def __init__(self, width: int, text: int) -> None:
        super().__init__(*mlp(width, text))

    def pooled(self, patches: Tensor, count: int) -> Tensor:
        every = self(patches)
        side = math.isqrt(every.shape[1])
        image = every.transpose(1, 2).reshape(len(every), -1, side, side)
        size = side // math.isqrt(count)
        return F.avg_pool2d(image, size, stride=size).flatten(2).transpose(1, 2)


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """All weights at random, norms and biases too; positions rounded as MQT's file has them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            flat = weight.dim() == 1
            scaled = noise * (0.1 if flat else 0.7 / math.sqrt(weight[0].numel()))
            weight.copy_(scaled + (flat and name.endswith("weight")))
            if name == "pos_embed":
                weight.copy_((noise * 0.5).half())
    return module.eval()
