"""The order of samples: seeded, rows of similar length together, the longest batch first."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class BatchOrder(Sampler[int]):
    """Indices of all samples, to be cut into batches of `batch_size` from the start.

    A pure function of seed and epoch, so that a resumed run finds its place by counting. Rows are
    drawn at random, `bucket` batches of them sorted by length and cut into batches, whose order is
    random again; a row of images never stands between rows of text alone. A bucket holds whole
    global batches (`accumulate` batches each, other processes' included): with bucket <= accumulate
    every optimizer step sees the very samples of a random order, in fewer padded tokens (the
    sorting of LLaVA's group_by_modality_length). `bucket` = 1 sorts nothing.

    `sizes` are (images, text tokens) of each row. The order depends on them and not on V, so that
    every V sees the same batches. The rows with the most text, and with the most text and images
    at 576 tokens an image, stand in the first two batches: too little memory shows at once.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        batch_size: int,
        *,
        accumulate: int = 1,
        bucket: int = 8,
        seed: int = 0,
    ):
        self.images, self.text = np.asarray(sizes, dtype=np.int64).reshape(-1, 2).T
        self.batch_size = batch_size
        self.bucket = 1 if bucket == 1 else accumulate * math.ceil(bucket / accumulate)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.text)

    def __iter__(self) -> Iterator[int]:
        return iter(np.concatenate(self.batches()).tolist() if len(self) else [])

    def batches(self) -> list[np.ndarray]:
        """The rows of every batch of this epoch; only the last may be short."""
        random = np.random.default_rng([self.seed, self.epoch])
        rows = random.permutation(len(self))
        longest = self._longest()
        for place, row in enumerate(longest):
            other = int(np.flatnonzero(rows == row)[0])
            rows[[place, other]] = rows[[other, place]]
        if self.bucket == 1:
            return self._cut(rows)
        step = self.bucket * self.batch_size
        found = []
        for start in range(0, len(rows), step):
            found += self._sorted(rows[start : start + step], random)
        # Sorting is stable, so only the first bucket's batches change places.
        return sorted(found, key=lambda batch: self._rank(batch, longest))

    def _longest(self) -> list[int]:
        """One or two rows: the longest with images, and the longest text."""
        if not len(self):
            return []
        most = int(np.argmax(self.text + 576 * self.images))
        return list(dict.fromkeys((most, int(np.argmax(self.text)))))

    def _rank(self, batch: np.ndarray, longest: list[int]) -> int:
        """Where a batch goes: those with the longest rows first, a short one last."""
        short = len(batch) < self.batch_size
        return 1 if short else -int(np.isin(longest, batch).sum())

    def _sorted(self, rows: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
        """The batches of one bucket, each of similar rows, in random order; a short one last."""
        rows = rows[np.lexsort((self.text[rows], self.images[rows]))]
        short = len(rows) % self.batch_size
        whole = self._cut(rows[short:])
        shuffled = [whole[place] for place in random.permutation(len(whole))]
        return shuffled + ([rows[:short]] if short else [])

    def _cut(self, rows: np.ndarray) -> list[np.ndarray]:
        return [rows[at : at + self.batch_size] for at in range(0, len(rows), self.batch_size)]
