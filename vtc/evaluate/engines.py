"""What answers a run's questions: vtc itself, or vLLM beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from vtc.evaluate.answered import Answer
from vtc.evaluate.answering import Question, answer
from vtc.evaluate.vllm_engine.check import Vllm
from vtc.model.run import Run


class Engine(Protocol):
    """A loaded run that answers."""

    def answer(
        self, questions: Sequence[Question], max_new_tokens: int
    ) -> Iterator[dict[int, Answer]]:
        """The answers by the items' places, as many at a time as the engine finds together."""
        ...


@dataclass(frozen=True)
class OwnEngine:
    """vtc's own: prompts of similar length in batches, by generation or by likelihood."""

    run: Run
    batch_size: int

    def answer(
        self, questions: Sequence[Question], max_new_tokens: int
    ) -> Iterator[dict[int, Answer]]:
        """As `answering.answer`."""
        return answer(self.run, questions, max_new_tokens, self.batch_size)


@contextmanager
def engine_of(
    run: Run, vllm: Vllm | None, batch_size: int, longest: int, fed: int
) -> Iterator[Engine]:
    """What answers for a run: vtc itself without `vllm`.

    Prompts and their answers have at most `longest` tokens together, an image at most `fed`.
    Raises as `answering_by_vllm`.
    """
    if vllm is None:
        yield OwnEngine(run, batch_size)
        return
    from vtc.evaluate.vllm_engine.engine import answering_by_vllm

    with answering_by_vllm(vllm, run, longest, fed, batch_size) as engine:
        yield engine
