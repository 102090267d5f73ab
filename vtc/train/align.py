"""`--objective align`: each visual token is matched to the words of what its region shows.

No LLM pass: the target of a token is made of the vocabulary embeddings of the texts that stand
in its cell of the image, so the frozen LLM reads the token as it reads words. An idea of the lab's
prototype (docs/lab.md), not of LLaVA.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtc.data.collate import ImageSource
from vtc.data.dataset import InMemory
from vtc.data.queries import QueryScope, QueryTokens, padded, question
from vtc.errors import InputError
from vtc.train.settings import AlignSettings
from vtc.train.trainer import VtcTrainer


@dataclass(frozen=True)
class AlignRow:
    """One sample: its image, and the tokens [R] of its regions with the cells [R] they fall in.

    `query` [Q] are the tokens of its question, for a compressor that reads one.
    """

    sample_id: str
    image: str
    token_ids: np.ndarray
    cells: np.ndarray
    query: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """One image and no text: no row is longer than another."""
        return 1, 0


def region_targets(
    token_ids: Tensor, cells: Tensor, embeddings: Tensor, n_cells: int, settings: AlignSettings
) -> Tensor:
    """The target of every cell [n_cells, d]: sum or mean of its tokens' embeddings, scaled.

    `sqrt` stands between them: the sum over the root of the number of tokens, about as long as
    one embedding however many there are.
    `token_ids` and `cells` are [R], `embeddings` [vocabulary, d]. A cell without tokens is zero.
    """
    targets = embeddings.new_zeros(n_cells, embeddings.shape[1])
    targets.index_add_(0, cells, embeddings[token_ids])
    if settings.reduction != "sum":
        counts = torch.bincount(cells, minlength=n_cells).clamp(min=1)[:, None]
        targets /= counts if settings.reduction == "mean" else counts.sqrt()
    return targets * settings.scale


def align_rows(
    samples: Sequence[dict[str, Any]],
    tokenizer: Any,
    visual_tokens: int,
    scope: QueryScope | None = None,
) -> list[AlignRow]:
    """Samples as rows: the text of each region tokenised, its place as one of k x k cells.

    With a `scope` each row also has the question of its sample (`data.queries`): that of the last
    turn, the one beside the image, or all. What a token is to match does not depend on it.
    Raises InputError if V is no square, or a sample has no regions or other than one image.
    """
    side = math.isqrt(visual_tokens)
    if side * side != visual_tokens:
        raise InputError(
            f"--objective align needs a square number of visual tokens, not {visual_tokens}"
        )
    words = _tokenise_once(samples, tokenizer)
    asked: list[np.ndarray] | list[None] = [None] * len(samples)
    if scope is not None:
        texts = [question(sample["conversations"], scope) for sample in samples]
        known = QueryTokens(tokenizer)
        known.learn(texts)
        asked = [known.ids(text) for text in texts]
    return [_align_row(*one, words, side) for one in zip(samples, asked, strict=True)]


def _align_row(
    sample: dict[str, Any], query: np.ndarray | None, words: dict[str, list[int]], side: int
) -> AlignRow:
    if not sample["regions"] or len(sample["images"]) != 1:
        raise InputError(
            f"sample {sample['sample_id']}: --objective align needs one image and its regions "
            "(text, x, y); use --objective lm"
        )
    ids, cells = [], []
    for region in sample["regions"]:
        column, row = (min(int(region[axis] * side), side - 1) for axis in ("x", "y"))
        tokens = words[region["text"]]
        ids += tokens
        cells += [row * side + column] * len(tokens)
    return AlignRow(
        sample["sample_id"],
        sample["images"][0],
        np.asarray(ids, dtype=np.int64),
        np.asarray(cells, dtype=np.int64),
        query,
    )


def _tokenise_once(samples: Sequence[dict[str, Any]], tokenizer: Any) -> dict[str, list[int]]:
    texts = list({region["text"] for sample in samples for region in sample["regions"] or ()})
    if not texts:
        return {}
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    return dict(zip(texts, ids, strict=True))


@dataclass
class AlignCollator:
    """Batches of images with `token_ids` and `cells` [R], cells counted through the batch.

    Rows with questions also give `query_ids` and `query_mask` [images, Q].
    """

    dataset: InMemory[AlignRow]
    images: ImageSource
    visual_tokens: int
    pad_token_id: int

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The batch of the given rows."""
        rows = [self.dataset.rows[index] for index in indices]
        cells = [row.cells + number * self.visual_tokens for number, row in enumerate(rows)]
        batch = {
            "token_ids": torch.from_numpy(np.concatenate([row.token_ids for row in rows])),
            "cells": torch.from_numpy(np.concatenate(cells)),
            **self.images([row.image for row in rows]),
        }
        asked = [row.query for row in rows if row.query is not None]
        if asked:
            ids, mask = padded(asked, self.pad_token_id)
            batch["query_ids"], batch["query_mask"] = torch.from_numpy(ids), torch.from_numpy(mask)
        return batch


class AlignTrainer(VtcTrainer):
    """Trains the compressor on the distance to an image's targets, as a share of their power.

    A loss of 1 is what all-zero tokens would have.
    """

    def __init__(self, *args: Any, align: AlignSettings, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.settings = align
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Squared distance over the square of the targets, of each image; their mean.

        Every image counts the same, or pages full of words would drown those that show one thing.
        """
        core = self.accelerator.unwrap_model(model).model
        levels = inputs.get("vision_levels")
        asked = {name: inputs[name] for name in ("query_ids", "query_mask") if name in inputs}
        if levels is None:
            levels = core.encode(inputs["pixel_values"])
        tokens = core.compress(levels, **asked)
        targets = region_targets(
            inputs["token_ids"],
            inputs["cells"],
            core.get_input_embeddings().weight.detach(),
            tokens.shape[0] * tokens.shape[1],
            self.settings,
        )
        wanted = targets.float().view(tokens.shape)
        distance = (tokens.float() - wanted).square().sum((1, 2))
        return (distance / wanted.square().sum((1, 2)).clamp(min=1e-12)).mean()
