"""Samples as one batch: token ids, masks, positions, labels, and the images' content."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vtc.data.dataset import InMemory, TokenisedRow
from vtc.data.exchanges import Exchanges
from vtc.data.labels import IGNORE, Encoded
from vtc.data.packed import pack as in_one_row
from vtc.data.packing import Questions
from vtc.data.queries import padded
from vtc.errors import InputError

ImageSource = Callable[[Sequence[str]], dict[str, Tensor]]
"""Image paths -> what the model reads of them: `pixel_values` or cached `vision_levels`."""


class _Part(NamedTuple):
    """A row of a batch: its tokens, its images, and the ids of what these are asked, if any."""

    encoded: Encoded
    images: tuple[str, ...]
    query: np.ndarray | None = None


class Collator:
    """Pads rows to their longest and builds what the model's forward takes.

    A batch holds `input_ids` and `position_ids` [B, T], `logits_to_keep` (bool [B, T]: the
    positions that predict a supervised token), `labels` and `shift_labels` (both [S], the tokens
    those positions predict) and what `images` gives. Rows are padded on the right: under causal
    attention no token sees the padding, so no mask is needed, which keeps the fast kernel. Rows
    of independent questions bring a block mask, `attention_mask` [B, 1, T, T] (0 or the dtype's
    lowest value, added to the attention scores). With `pack` the batch is one row without padding
    (B = 1) that also says where its samples begin (see `data.packed.pack`); samples, labels and
    images stand in the same order.

    Rows of exchanges (see `data.exchanges`), which a compressor that reads the question needs,
    become a row an answer. For each image place of the batch, in order, `query_ids` and
    `query_mask` [I, Q] are what it is compressed for, and `query_images` [I] says which of the
    images it shows: each is in the batch once.

    With `marks_prompt`, which a compressor that fuses text needs, `fused_mask` [B, T] is 1 at the
    tokens that are learnt from and not learnt: no answer, no padding.

    Each image becomes `n_visual` tokens. `max_questions` draws that many of a row's questions anew
    each epoch, by seed, epoch and row alone. Dialogues longer than `max_length` tokens lose their
    end, as in LLaVA; of independent questions each one alone must fit.
    """

    def __init__(
        self,
        dataset: InMemory[TokenisedRow],
        n_visual: int,
        pad_token_id: int,
        images: ImageSource | None = None,
        *,
        max_questions: int | None = None,
        max_length: int | None = None,
        seed: int = 0,
        mask_dtype: torch.dtype = torch.float32,
        pack: bool = False,
        marks_prompt: bool = False,
    ):
        self.dataset = dataset
        self.n_visual = n_visual
        self.pad_token_id = pad_token_id
        self.images = images
        self.max_questions = max_questions
        self.max_length = max_length
        self.mask_dtype = mask_dtype
        self.pack = pack
        self.marks_prompt = marks_prompt
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose questions are drawn."""
        self.epoch = epoch

    def __call__(self, indices: Sequence[int]) -> dict[str, Any]:
        """The batch of the given rows of the dataset.

        Raises InputError naming a row whose images and answers do not fit into `max_length`.
        """
        parts = [part for index in indices for part in self._parts(index)]
        encoded = [part.encoded for part in parts]
        batch = (
            in_one_row(encoded)
            if self.pack
            else collate(encoded, self.pad_token_id, self.mask_dtype)
        )
        if self.marks_prompt:
            told = [row.labels == IGNORE for row in encoded]
            batch["fused_mask"] = torch.from_numpy(padded(told, 0)[0])
        paths = [path for part in parts for path in part.images]
        asked = [part.query for part in parts if part.query is not None for _ in part.images]
        if asked:
            ids, mask = padded(asked, self.pad_token_id)
            distinct = {path: number for number, path in enumerate(dict.fromkeys(paths))}
            batch["query_ids"], batch["query_mask"] = torch.from_numpy(ids), torch.from_numpy(mask)
            batch["query_images"] = torch.tensor([distinct[path] for path in paths])
            paths = list(distinct)
        if paths and self.images is not None:
            batch.update(self.images(paths))
        return batch

    def _parts(self, index: int) -> list[_Part]:
        row = self.dataset.rows[index]
        if not isinstance(row.tokens, Exchanges):
            whole = row.tokens.encode(self.n_visual, self._choose(index))
            return [_Part(self._fitting(whole, row), row.images)]
        parts = []
        for asked in row.tokens.rows(self.n_visual, self._choose(index)):
            encoded = self._cut(asked.encoded, row.tokens.image_token_id)
            if encoded is not None:
                parts.append(_Part(encoded, row.images[: asked.n_images], asked.query))
            elif row.tokens.independent or not parts:
                raise self._too_long(row)
        return parts

    def _fitting(self, encoded: Encoded, row: TokenisedRow) -> Encoded:
        if isinstance(row.tokens, Questions) and self._is_too_long(encoded):
            raise self._too_long(row)
        cut = self._cut(encoded, row.tokens.image_token_id)
        if cut is None:
            raise self._too_long(row)
        return cut

    def _is_too_long(self, encoded: Encoded) -> bool:
        return self.max_length is not None and encoded.position_ids.max() >= self.max_length

    def _cut(self, encoded: Encoded, image_token: int) -> Encoded | None:
        """A row without what passes the longest allowed; None if images or all labels would go."""
        if not self._is_too_long(encoded):
            return encoded
        cut = Encoded(*(part[: self.max_length] for part in encoded))
        lost = encoded.input_ids[self.max_length :]
        if (lost == image_token).any() or (cut.labels == IGNORE).all():
            return None
        return cut

    def _too_long(self, row: TokenisedRow) -> InputError:
        return InputError(
            f"sample {row.sample_id}: its images and answer pass --max-length {self.max_length}; "
            "raise it, or choose a smaller V"
        )

    def _choose(self, index: int) -> list[int] | None:
        tokens = self.dataset.rows[index].tokens
        if self.max_questions is None or not isinstance(tokens, Questions | Exchanges):
            return None
        n_questions = tokens.n_rows if isinstance(tokens, Exchanges) else len(tokens.branches)
        if n_questions <= self.max_questions:
            return None
        random = np.random.default_rng([self.seed, self.epoch, index])
        return random.choice(n_questions, self.max_questions, replace=False).tolist()


def collate(
    rows: Sequence[Encoded], pad_token_id: int, mask_dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Pad rows on the right into one batch; see Collator for what it holds."""
    length = max(len(row.input_ids) for row in rows)
    input_ids = np.full((len(rows), length), pad_token_id, dtype=np.int64)
    labels = np.full((len(rows), length + 1), IGNORE, dtype=np.int64)
    turn_ids = np.full((len(rows), length), -1, dtype=np.int64)
    position_ids = np.zeros((len(rows), length), dtype=np.int64)
    for number, row in enumerate(rows):
        end = len(row.input_ids)
        input_ids[number, :end] = row.input_ids
        labels[number, :end] = row.labels
        turn_ids[number, :end] = row.turn_ids
        position_ids[number, :end] = row.position_ids
    predicts = labels[:, 1:] != IGNORE
    targets = torch.from_numpy(labels[:, 1:][predicts])
    batch = {
        "input_ids": torch.from_numpy(input_ids),
        "position_ids": torch.from_numpy(position_ids),
        "logits_to_keep": torch.from_numpy(predicts),
        "labels": targets,
        "shift_labels": targets,
    }
    if turn_ids.max() > 1:
        batch["attention_mask"] = block_mask(torch.from_numpy(turn_ids), mask_dtype)
    return batch


def block_mask(turn_ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The additive mask [B, 1, T, T] of blocks: a token sees block 0 and its own, never ahead.

    `turn_ids` [B, T]; -1 marks padding, which sees itself (a row of nothing would be NaN).
    """
    keys, queries = turn_ids[:, None, :], turn_ids[:, :, None]
    length = turn_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = ((keys == queries) | (keys == 0)) & causal
    blocked = torch.finfo(dtype).min
    mask = torch.full(seen.shape, blocked, dtype=dtype)
    return mask.masked_fill_(seen, 0.0)[:, None]
