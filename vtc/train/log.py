"""What a training says of itself while it runs: counters, throughput, and rows of its log."""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback

Row = dict[str, Any]
Advance = Callable[..., object]
"""Called after every optimizer step with 1 and a few words for people."""

FACTS = "facts"


@dataclass(frozen=True)
class BatchFacts:
    """What a batch is made of: its rows of the dataset, the LLM's tokens and the images."""

    rows: tuple[int, ...]
    n_tokens: int
    n_images: int


class Described:
    """A collator whose batches also hold their `facts`, counted before they reach a device."""

    def __init__(self, collator: Callable[[Sequence[int]], Row]):
        self.collator = collator

    def __call__(self, indices: Sequence[int]) -> Row:
        """The collator's batch, and its BatchFacts."""
        batch = self.collator(indices)
        images = batch.get("vision_levels", batch.get("pixel_values"))
        n_images = 0 if images is None else len(images)
        return {**batch, FACTS: BatchFacts(tuple(indices), _n_tokens(batch), n_images)}

    def set_epoch(self, epoch: int) -> None:
        """Choose the collator's epoch, if it has any."""
        if hasattr(self.collator, "set_epoch"):
            self.collator.set_epoch(epoch)  # type: ignore[attr-defined]


def _n_tokens(batch: Row) -> int:
    """Tokens without the padding, whose positions are 0 as that of each row's first token."""
    if "position_ids" not in batch:
        return 0
    if "cu_seq_lens_q" in batch:
        return batch["position_ids"].numel()
    return int((batch["position_ids"] > 0).sum()) + len(batch["position_ids"])


@dataclass
class Counts:
    """Totals since the first step, over all processes, whatever was resumed in between."""

    samples_seen: int = 0
    supervised_tokens: int = 0
    tokens: int = 0
    images: int = 0
    seconds: float = 0.0


class LogRows(TrainerCallback):
    """Keeps the rows of train_log.parquet and moves the progress bar, with words beside it."""

    def __init__(self, advance: Advance):
        self.advance = advance
        self.rows: list[Row] = []
        self.trainer: Any = None
        self._start = time.perf_counter()
        self._last = Counts()
        self._rates = ""
        self._unlogged: tuple[float, int] | None = None

    def resume(self, rows: list[Row], loss_since_row: float, step_of_row: int) -> None:
        """Go on behind the rows of a checkpoint; the trainer's counts are its already."""
        self.rows[:] = rows
        self._start = time.perf_counter() - self.trainer.counts.seconds
        self._last = Counts(**vars(self.trainer.counts))
        self._unlogged = (loss_since_row, step_of_row)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give Trainer back the loss of the steps that have no row yet: it forgets them."""
        if self._unlogged is not None:
            loss, step = self._unlogged
            self.trainer._tr_loss.fill_(loss)
            self.trainer._globalstep_last_logged = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the progress bar; the last step is always logged."""
        self.trainer.counts.seconds = time.perf_counter() - self._start
        self.advance(1, f"loss {self.trainer.step_loss:.3f}{self._rates}")
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep one row; Trainer's closing summary, which has no loss, is left out."""
        if not logs or "loss" not in logs:
            return
        counts, memory = self.trainer.counts, peak_memory()
        counts.seconds = time.perf_counter() - self._start
        tokens, images = self._rate("tokens"), self._rate("images")
        self._last = Counts(**vars(counts))
        self._rates = _words(tokens, images, memory)
        self.rows.append(
            {
                "step": state.global_step,
                "epoch": float(state.epoch or 0),
                "loss": float(logs["loss"]),
                "learning_rate": float(logs["learning_rate"]),
                "grad_norm": logs.get("grad_norm"),
                "samples_seen": counts.samples_seen,
                "supervised_tokens": counts.supervised_tokens,
                "seconds": counts.seconds,
                "tokens_per_second": tokens,
                "images_per_second": images,
                "peak_memory_bytes": memory,
            }
        )

    def _rate(self, name: str) -> float:
        """So many a second since the last row."""
        passed = max(self.trainer.counts.seconds - self._last.seconds, 1e-9)
        return (getattr(self.trainer.counts, name) - getattr(self._last, name)) / passed


def peak_memory() -> int:
    """Bytes at the peak: what torch held on the GPU, without one what this process held."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _words(tokens: float, images: float, memory: int) -> str:
    rates = f", {tokens:,.0f} tokens/s" if tokens else ""
    return f"{rates}, {images:,.1f} images/s, {memory / 1e9:.1f} GB"
