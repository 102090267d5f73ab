"""When a training stops before its end: told to by a signal, or by a loss that is no number."""

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtc.errors import Interrupted, VtcError
from vtc.tables.atomic import replacing
from vtc.train.processes import n_processes


@dataclass
class Stop:
    """Whether a signal has come that ends the training after the step under way."""

    signal: int | None = None

    def agreed(self) -> int | None:
        """The signal, if any process has one: a launcher's reaches each at its own moment.

        All of several processes must call it.
        """
        if n_processes() > 1:
            from accelerate.utils import gather_object

            heard = [number for number in gather_object([self.signal]) if number is not None]
            self.signal = self.signal or next(iter(heard), None)
        return self.signal

    def interrupted(self, what: str) -> Interrupted:
        """The failure to raise, with the exit code that shells give the signal."""
        number = signal.Signals(self.signal or signal.SIGTERM)
        return Interrupted(f"stopped by {number.name} {what}", 128 + number)


@contextmanager
def stop_signals(say: Callable[[str], object]) -> Iterator[Stop]:
    """Remember SIGTERM and SIGINT instead of dying of them; a second Ctrl-C ends at once.

    Of several processes each may get both, from the terminal and from the launcher: none ends at
    once. Outside the main thread signals are left alone.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def remember(number: int, frame: Any) -> None:
        if stop.signal == number == signal.SIGINT and n_processes() == 1:
            raise KeyboardInterrupt
        if stop.signal is None:
            say(f"{signal.Signals(number).name}: stopping after this step")
        stop.signal = stop.signal or number

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, remember) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class BatchLoss:
    """One batch of a step: its share of the step's loss, and the ids of its samples."""

    loss: float
    samples: Sequence[str]


def not_a_number(
    step: int, norm: float, batches: Sequence[BatchLoss], file: Path, way_out: str, write: bool
) -> VtcError:
    """Write down what the step was made of, and the failure that names the file.

    The file lists the batches of all processes; those whose loss is no number come first.
    """
    bad = [batch for batch in batches if not math.isfinite(batch.loss)]
    what = f"loss is {bad[0].loss}" if bad else f"gradient's norm is {norm}"
    if write:
        rows = [{"loss": str(b.loss), "samples": list(b.samples)} for b in (bad or batches)]
        about = {"step": step, "gradient_norm": str(norm), "batches": rows}
        with replacing(file) as partial:
            partial.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return VtcError(f"the {what} at step {step}; {way_out}; the samples of the step are in {file}")
