"""Pre-training of the miniature vision encoder, a real CLIPVisionModel, on pages of both kinds.

Two losses, alike for scenes and documents: what each patch shows and where it stands (from the
penultimate layer, which LLaVA reads), and which words the caption holds (from the class token,
CLIP's bag of words). `objective` switches them for the ablation.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from vtc.lab import documents, rendering, scenes, words
from vtc.lab.language import set_rate
from vtc.lab.pages import Pages
from vtc.lab.presets import EncoderTraining

MEAN, STD = 0.5, 0.5
"""Pixel normalisation, the same for every channel."""


def build(settings: EncoderTraining, seed: int) -> CLIPVisionModel:
    """An untrained CLIPVisionModel for 96x96 images in 8x8 patches."""
    torch.manual_seed(seed)
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=settings.width,
            intermediate_size=settings.mlp_width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            image_size=rendering.IMAGE_PIXELS,
            patch_size=rendering.IMAGE_PIXELS // words.SIDE,
            projection_dim=settings.width,
            hidden_act="quick_gelu",
        )
    )


def as_pixels(pictures: np.ndarray) -> Tensor:
    """Pictures [B, 96, 96, 3] as normalised pixels [B, 3, 96, 96]."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    return (pixels / 255 - MEAN) / STD


class Heads(nn.Module):
    """Read-outs used in pre-training only: each patch's content and cell, the caption's words."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(words.WORDS)))
        self.place = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, words.SIDE**2))
        self.caption = nn.Linear(width, len(words.WORDS))


def train(
    model: CLIPVisionModel,
    settings: EncoderTraining,
    seed: int,
    camera: rendering.Camera,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Pre-train in place; returns the mean losses of the last 50 steps in nats by name."""
    rng = np.random.default_rng([seed, 3])
    heads = Heads(settings.width)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    model.train()
    history = []
    for step in range(settings.steps):
        set_rate(optimizer, settings.learning_rate, step, settings.steps)
        losses = _losses(model, heads, _pages(rng, settings), settings, rng, camera)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
        advance()
    model.eval()
    return {name: float(np.mean([row[name] for row in history[-50:]])) for name in history[-1]}


def _pages(rng: np.random.Generator, settings: EncoderTraining) -> list[Pages]:
    """Half scenes, crowded and in every colour alike, half documents."""
    half = settings.images // 2
    return [scenes.sample(rng, half, None, 1, len(words.SHAPES)), documents.sample(rng, half)]


def _losses(
    model: CLIPVisionModel,
    heads: Heads,
    batch: list[Pages],
    settings: EncoderTraining,
    rng: np.random.Generator,
    camera: rendering.Camera,
) -> dict[str, Tensor]:
    pictures = np.concatenate([rendering.draw(pages, rng, camera) for pages in batch])
    output = model(pixel_values=as_pixels(pictures), output_hidden_states=True)
    shown = torch.from_numpy(np.concatenate([shown_at(pages) for pages in batch]))
    losses = {}
    if settings.objective in ("both", "local"):
        patches = output.hidden_states[-2][:, 1:]
        losses["local"] = _content_loss(heads.patch(patches), shown, len(batch))
        cells = torch.arange(words.SIDE**2).expand(len(shown), -1)
        # An easy loss that would outweigh the others for long.
        losses["place"] = 0.3 * F.cross_entropy(heads.place(patches).transpose(1, 2), cells)
    if settings.objective in ("both", "caption"):
        present = torch.zeros(len(shown), len(words.WORDS)).scatter_(1, shown, 1.0)
        logits = heads.caption(output.pooler_output)
        # Word 0 stands for "empty" and is no word of a caption.
        losses["caption"] = 10 * F.binary_cross_entropy_with_logits(logits[:, 1:], present[:, 1:])
    return losses


def _content_loss(logits: Tensor, shown: Tensor, n_kinds: int) -> Tensor:
    """Mean loss of what the cells [B, 144] show, B the same number of images of each kind.

    Empty cells outnumber the others, and documents show more than scenes: an empty cell counts a
    tenth, and the kinds of pages count the same.
    """
    each = F.cross_entropy(logits.transpose(1, 2), shown, reduction="none").view(n_kinds, -1)
    weight = torch.where(shown > 0, 1.0, 0.1).view(n_kinds, -1)
    return ((each * weight).sum(1) / weight.sum(1)).mean()


def shown_at(pages: Pages) -> np.ndarray:
    """Word ids [B, 144] of what each cell shows, 0 where it is empty."""
    shown = np.zeros((len(pages), words.SIDE**2), dtype=np.int64)
    image, thing = np.nonzero(pages.content)
    shown[image, pages.cells[image, thing]] = pages.content[image, thing]
    return shown
