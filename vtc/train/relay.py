"""Several trainings in one process that take turns, batch by batch, so that they can share work.

Each is an ordinary training with its own Trainer, log and checkpoints, in a thread of its own; only
the one whose turn it is runs. Nothing of it depends on the others: what is global (the state of
the random generators) changes hands with the turn.
"""

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from vtc.errors import Interrupted

Result = TypeVar("Result")


class _Abandoned(Exception):
    """Unwinds a training whose relay has failed elsewhere."""


class Relay:
    """Runs functions side by side, one at a time; each passes on at its own calls of `pass_on`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: list[int] = []
        self._turn = 0
        self._failure: BaseException | None = None
        self._stopped: Interrupted | None = None
        self._own = threading.local()

    def run(self, works: Sequence[Callable[[], Result]]) -> list[Result]:
        """The results of all; the first failure stops the others at their next turn, and is raised.

        Signals reach the calling thread, which does nothing but wait; one that was told to stop
        (Interrupted) lets the others come to their own stop.
        """
        results: list[Any] = [None] * len(works)
        self._running, self._turn = list(range(len(works))), 0
        self._failure = self._stopped = None
        threads = [
            threading.Thread(target=self._work, args=(number, work, results), daemon=True)
            for number, work in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as interrupt:
            self._fail(interrupt)
            for thread in threads:
                thread.join()
            raise
        ended = self._failure or self._stopped
        if ended is not None:
            raise ended
        return results

    def pass_on(self) -> None:
        """Let the others have their turn; returns when all had it. Alone, or outside: at once."""
        number = getattr(self._own, "number", None)
        if number is None or self._running == [number]:
            return
        chance = _chance()
        with self._changed:
            self._turn = self._next(number)
            self._changed.notify_all()
        self._wait(number)
        _set_chance(chance)

    def _work(self, number: int, work: Callable[[], Any], results: list[Any]) -> None:
        self._own.number = number
        try:
            self._wait(number)
            results[number] = work()
        except _Abandoned:
            pass
        except Interrupted as stopped:
            self._stopped = stopped
        except BaseException as failure:
            self._fail(failure)
        finally:
            with self._changed:
                following = self._next(number)
                self._running.remove(number)
                self._turn = following
                self._changed.notify_all()

    def _wait(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._turn == number or self._failure is not None)
        if self._failure is not None:
            raise _Abandoned

    def _next(self, number: int) -> int:
        return next((n for n in self._running if n > number), self._running[0])

    def _fail(self, failure: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()


def _chance() -> tuple:
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), gpu


def _set_chance(state: tuple) -> None:
    python, numpy, cpu, gpu = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if gpu is not None:
        torch.cuda.set_rng_state(gpu)
