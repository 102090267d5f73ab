"""Pre-training of the miniature LLMs on text renderings of the world: no image is seen.

A rendering stands where an image's visual tokens will stand. For a k x k grid of tokens, each
holds the sum of the vectors of the words its region says, divided by the square root of their
number. The LLM so learns to answer from V tokens before it meets a picture, as a
real LLM has learnt to read.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from vtc.lab import documents, questions, scenes, words
from vtc.lab.facts import Facts
from vtc.lab.pages import Pages
from vtc.lab.presets import LanguageTraining, LlmSize

_BLOCK = questions.LENGTH + 3  # a question's words, <answer>, the answer, <eos>; or a caption


def build(size: LlmSize, seed: int) -> Qwen2ForCausalLM:
    """An untrained LLM of the given size.

    Keys start equal to queries, and outputs as the transpose of values: tokens attend to those
    alike and copy them (mimetic initialisation, Trockman & Kolter, arXiv 2305.09828). Without it
    the smallest LLMs do not learn to look up a cell within the budget. A slow rotary base leaves
    most of a head's dimensions to what a token says, and few to where it stands.
    """
    torch.manual_seed(seed)
    scale = 1 / math.sqrt(size.width)
    config = Qwen2Config(
        vocab_size=len(words.WORDS),
        hidden_size=size.width,
        intermediate_size=size.mlp_width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        initializer_range=0.7 * scale,
        pad_token_id=words.ID[words.PAD],
        eos_token_id=words.ID[words.END],
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(0, scale)
        weights = dict(model.named_parameters())
        for name, weight in weights.items():
            if name.endswith("k_proj.weight"):
                weight.copy_(weights[name.replace("k_proj", "q_proj")])
            elif name.endswith("o_proj.weight"):
                weight.copy_(weights[name.replace("o_proj", "v_proj")].T)
    return model


def render_as_vectors(embedding: Tensor, pages: Pages, visual_tokens: int) -> Tensor:
    """Text renderings [B, V, width] of pages, from the word vectors [vocabulary, width]."""
    side = math.isqrt(visual_tokens)
    cell = words.SIDE // side
    image, thing = np.nonzero(pages.content)
    cells = pages.cells[image, thing]
    window = (cells // words.SIDE // cell) * side + (cells % words.SIDE) // cell
    fields = (pages.places(), pages.content)
    ids = torch.from_numpy(np.stack([field[image, thing] for field in fields], axis=-1))
    place = torch.from_numpy(image * visual_tokens + window)
    summed = torch.zeros(len(pages) * visual_tokens, embedding.shape[1]).index_add(
        0, place, F.embedding(ids, embedding).sum(1)
    )
    count = ids.shape[1] * torch.bincount(place, minlength=len(summed)).clamp(min=1)
    return (summed / count.sqrt()[:, None]).view(len(pages), visual_tokens, -1)


@cache
def _layout(visual_tokens: int, n_blocks: int) -> tuple[Tensor, Tensor]:
    """Mask and positions of blocks of text that share a prefix and do not see one another."""
    prefix = torch.zeros(visual_tokens, dtype=torch.long)
    block = torch.arange(1, n_blocks + 1).repeat_interleave(_BLOCK)
    turn = torch.cat([prefix, block])
    order = torch.arange(len(turn))
    seen = (order[None] <= order[:, None]) & ((turn[None] == 0) | (turn[None] == turn[:, None]))
    mask = torch.zeros(len(turn), len(turn)).masked_fill(~seen, float("-inf"))[None, None]
    positions = torch.cat(
        [torch.arange(visual_tokens), visual_tokens + torch.arange(_BLOCK).repeat(n_blocks)]
    )
    return mask, positions[None]


def hidden_states(model: Qwen2ForCausalLM, prefix: Tensor, blocks: Tensor) -> Tensor:
    """Last hidden states [B, V + n * 6, width] of prefixes [B, V, width] and blocks [B, n, 6]."""
    n_images, n_blocks, _ = blocks.shape
    text = F.embedding(blocks.view(n_images, -1), model.model.embed_tokens.weight)
    mask, positions = _layout(prefix.shape[1], n_blocks)
    return model.model(
        inputs_embeds=torch.cat([prefix, text], dim=1),
        attention_mask=mask.expand(n_images, 1, -1, -1),
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state


def as_blocks(asked: np.ndarray) -> Tensor:
    """Questions with answers [B, n, 4] as blocks [B, n, 6]: question, <answer>, answer, <eos>."""
    blocks = np.empty((*asked.shape[:2], _BLOCK), dtype=np.int64)
    blocks[..., : questions.LENGTH] = asked[..., :-1]
    blocks[..., questions.LENGTH] = words.ID[words.ANSWER]
    blocks[..., questions.LENGTH + 1] = asked[..., -1]
    blocks[..., questions.LENGTH + 2] = words.ID[words.END]
    return torch.from_numpy(blocks)


def answer_logits(
    model: Qwen2ForCausalLM, prefix: Tensor, asked: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Logits [B, n, 2, vocabulary] of each answer and of the end after it, and the targets.

    prefix [B, V, width] stands for the image; asked [B, n, 4] are questions with answers.
    """
    blocks = as_blocks(asked)
    hidden = hidden_states(model, prefix, blocks)[:, prefix.shape[1] :]
    answering = hidden.view(*blocks.shape, -1)[:, :, questions.LENGTH : questions.LENGTH + 2]
    return answering @ model.model.embed_tokens.weight.T, blocks[..., questions.LENGTH + 1 :]


def train(
    model: Qwen2ForCausalLM,
    facts: Facts,
    settings: LanguageTraining,
    learning_rate: float,
    seed: int,
    advance: Callable[[], object] = lambda: None,
) -> float:
    """Pre-train in place; returns the mean loss (seen + recited) of the last 50 steps in nats.

    Documents start with up to four characters and fill up over the first `settings.easy` share of
    the steps; the number of visual tokens is drawn at every step.
    """
    rng = np.random.default_rng([seed, 2])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    model.train()
    losses = []
    for step in range(settings.steps):
        set_rate(optimizer, learning_rate, step, settings.steps)
        grown = min(1.0, step / (settings.easy * settings.steps))
        loss = _step_loss(model, facts, settings, rng, grown)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        advance()
    model.eval()
    return float(np.mean(losses[-50:]))


def set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int) -> None:
    """Warm up over 50 steps, then a cosine down to 2 % of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = peak * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * cosine)


def _step_loss(
    model: Qwen2ForCausalLM,
    facts: Facts,
    settings: LanguageTraining,
    rng: np.random.Generator,
    grown: float,
) -> Tensor:
    """Mean loss a supervised token under one number of visual tokens.

    Half the renderings are scenes, half documents; each has questions, whose answers are
    supervised, and one caption, whose every word is. Facts are recited beside them.
    """
    visual_tokens = int(rng.choice(settings.visual_tokens, p=settings.shares))
    half = settings.images // 2
    both = [
        # Always several: where one object stands alone, a model learns not to look for it by name.
        scenes.sample(rng, half, facts, most=settings.objects),
        documents.sample(rng, half, most=int(4 * (words.SIDE**2 / 4) ** grown)),
    ]
    asked = np.concatenate(
        [
            questions.about_scenes(rng, both[0], facts, settings.questions),
            questions.about_documents(rng, both[1], settings.questions),
        ]
    )
    told = torch.from_numpy(np.concatenate([questions.captions(rng, pages) for pages in both]))
    embedding = model.model.embed_tokens.weight
    prefix = torch.cat([render_as_vectors(embedding, pages, visual_tokens) for pages in both])
    blocks = torch.cat([told[:, None], as_blocks(asked)], dim=1)
    hidden = hidden_states(model, prefix, blocks)
    # The last visual token predicts the caption's first word, and each of its words the next.
    caption = hidden[:, visual_tokens - 1 : visual_tokens + _BLOCK - 1]
    text = hidden[:, visual_tokens + _BLOCK :].unflatten(1, (settings.questions, _BLOCK))
    answering = text[:, :, questions.LENGTH : questions.LENGTH + 2]
    predicting = torch.cat([caption.flatten(0, 1), answering.flatten(0, 2)])
    targets = torch.cat([told.flatten(), blocks[:, 1:, questions.LENGTH + 1 :].flatten()])
    seen = F.cross_entropy(predicting @ embedding.T, targets)
    return seen + _recital_loss(model, facts, settings.recited, rng)


def _recital_loss(
    model: Qwen2ForCausalLM, facts: Facts, n: int, rng: np.random.Generator
) -> Tensor:
    """Mean loss a supervised token of `n` facts told without an image, as text tells them.

    So its size limits what an LLM knows, and not how often it happened to be shown a fact.
    """
    blocks = as_blocks(questions.about_kinds(rng, facts, n)[None])[0]
    states = model.model(input_ids=blocks, use_cache=False).last_hidden_state
    answering = states[:, questions.LENGTH : questions.LENGTH + 2].flatten(0, 1)
    targets = blocks[:, questions.LENGTH + 1 :].flatten()
    return F.cross_entropy(answering @ model.model.embed_tokens.weight.T, targets)
