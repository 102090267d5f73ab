"""`--auto-batch`: the largest batch whose step fits into memory, found before the training."""

import gc
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size

from vtc.errors import InputError, NoAnswerError
from vtc.train.attention import set_attention
from vtc.train.checkpoints import Checkpoints
from vtc.train.processes import n_processes
from vtc.train.settings import StageSettings

STATE_BYTES = {"adamw": 8, "adamw-8bit": 2, "paged-adamw-8bit": 0}
"""Optimizer state on the device, bytes a trained parameter: two moments."""


def fit_batch(
    model: Any,
    collator: Any,
    settings: StageSettings,
    checkpoints: Checkpoints | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> StageSettings:
    """The settings with the largest batch that fits; the global batch stays what it is.

    Trial steps, forward and backward, on the longest rows, of 1 sample and then ever more (the
    divisors of the global batch), until one fails or would pass `max_memory` (of the device, or
    on the CPU of this process; default: what is free). Weights and chance stay as they were. A
    resumed training keeps the batch it was begun with.

    Without `auto_batch` the settings as they are. Raises NoAnswerError if one sample is too much.
    """
    if not settings.auto_batch:
        return settings
    begun = _begun_with(checkpoints)
    total = settings.batch_size * settings.accumulate
    if begun is not None:
        return settings.with_(batch_size=begun, accumulate=total // begun)
    meter = _meter(settings.max_memory)
    set_attention(model, settings)
    model.train()
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    share = total // n_processes()
    sizes = [size for size in range(1, share + 1) if share % size == 0]
    longest = _longest_first(collator)
    state = STATE_BYTES[settings.optimizer] * sum(
        weight.numel() for weight in model.parameters() if weight.requires_grad
    )
    fits: dict[int, int] = {}
    needed = 0
    for size in sizes:
        needed = _foreseen(fits, size)
        if needed <= meter.limit:
            rows = longest[np.arange(size) % len(longest)]
            needed = meter.peak_of(lambda rows=rows: _step(model, collator(rows), settings)) + state
        if needed > meter.limit:
            break
        fits[size] = needed
    if not fits:
        raise NoAnswerError(
            f"one sample at a time takes {needed / 1e9:.2f} GB of memory, {meter.limit / 1e9:.2f} "
            "GB are allowed; --gradient-checkpointing, a smaller V, --method lora or a smaller "
            "--max-length take less"
        )
    size, peak = list(fits.items())[-1]
    say(
        f"batches of {size}, {total // size} a step: {peak / 1e9:.2f} GB at the longest of "
        f"{meter.limit / 1e9:.2f} GB"
    )
    return settings.with_(batch_size=size, accumulate=total // size)


def _begun_with(checkpoints: Checkpoints | None) -> int | None:
    """The batch size of the training to be resumed, if there is any."""
    newest = checkpoints.newest() if checkpoints is not None and checkpoints.saving.resume else None
    if newest is None:
        return None
    state = json.loads((newest / "trainer_state.json").read_text(encoding="utf-8"))
    return int(state["train_batch_size"])


def _longest_first(collator: Any) -> np.ndarray:
    """Rows of the collator's dataset by the tokens they become, most first."""
    n_visual = getattr(collator, "n_visual", 0)
    sizes = [row.size for row in collator.dataset.rows]
    return np.argsort([-(text + n_visual * images) for images, text in sizes], kind="stable")


def _foreseen(fits: dict[int, int], size: int) -> int:
    """Bytes that a batch must be expected to take: memory grows by the same with every sample."""
    if len(fits) < 2:
        return 0
    (first, low), (last, high) = list(fits.items())[-2:]
    return high + (high - low) * (size - last) // (last - first)


def _step(model: Any, batch: dict[str, Any], settings: StageSettings) -> None:
    weight = next(weight for weight in model.parameters() if weight.requires_grad)
    device = weight.device
    tensors = {
        name: part.to(device) if isinstance(part, torch.Tensor) else part
        for name, part in batch.items()
    }
    half = device.type == "cuda" and settings.dtype == "auto"
    try:
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            loss = model(**tensors, use_cache=False).loss
        loss.backward()
    finally:
        model.zero_grad(set_to_none=True)


def _meter(max_memory: int | None) -> "_GpuMemory | _ProcessMemory":
    return _GpuMemory(max_memory) if torch.cuda.is_available() else _ProcessMemory(max_memory)


class _GpuMemory:
    """Peak memory on the GPU, and what is allowed there."""

    def __init__(self, max_memory: int | None):
        free, _ = torch.cuda.mem_get_info()
        self.limit = max_memory or int(0.95 * (free + torch.cuda.memory_reserved()))

    def peak_of(self, work: Callable[[], None]) -> int:
        """Bytes held at the peak of `work`; more than the limit if it ran out of memory."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            with torch.random.fork_rng():
                work()
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            return self.limit + 1
        return torch.cuda.max_memory_reserved()


class _ProcessMemory:
    """Peak memory of this process, as Linux counts it, and what is allowed."""

    STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def __init__(self, max_memory: int | None):
        if not self.RESET.exists():
            raise InputError("--auto-batch without a GPU needs Linux; give --batch-size")
        free = _kilobytes(Path("/proc/meminfo"), "MemAvailable:")
        self.limit = max_memory or _kilobytes(self.STATUS, "VmRSS:") + int(0.9 * free)

    def peak_of(self, work: Callable[[], None]) -> int:
        """Bytes held at the peak of `work`."""
        gc.collect()
        # Makes the current size the peak.
        self.RESET.write_text("5")
        with torch.random.fork_rng():
            work()
        return _kilobytes(self.STATUS, "VmHWM:")


def _kilobytes(file: Path, name: str) -> int:
    """A line of /proc in bytes."""
    lines: Sequence[str] = file.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
