"""How likely answers are behind prompts: prompts are read once, then all their answers."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vtc.data.labels import TurnEncoder
from vtc.model.generation import end_tokens
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.processor import VtcProcessor
from vtc.model.prompts import Asked, readings
from vtc.model.reading import Reading, read_on


class AnswerTokens:
    """The tokens of answers in the place where training saw answers, without the end token."""

    def __init__(self, model: VtcForConditionalGeneration, processor: VtcProcessor):
        self._encoder = TurnEncoder(processor.tokenizer, "chat", processor.query_position)
        self._ends = end_tokens(model)
        self._known: dict[str, tuple[int, ...]] = {}

    def of(self, answer: str) -> tuple[int, ...]:
        """Token ids of an answer; ValueError if it has none."""
        if answer not in self._known:
            turns = [{"role": "user", "text": "?"}, {"role": "assistant", "text": answer}]
            ids, _ = self._encoder.tokens(turns)
            own = ids[len(self._encoder.prompt(turns[:1])) :].tolist()
            # Behind the end token a template may write a line feed.
            ended = next((n for n, token in enumerate(own) if token in self._ends), len(own))
            if not ended:
                raise ValueError(f"the answer {answer!r} has no tokens")
            self._known[answer] = tuple(own[:ended])
        return self._known[answer]


def likelihoods(
    model: VtcForConditionalGeneration,
    processor: VtcProcessor,
    asked: Sequence[Asked],
    answers: Sequence[Sequence[Sequence[int]]],
    batch_size: int = 16,
) -> Iterator[dict[int, list[float]]]:
    """The log-likelihood in nats of each of a prompt's answers, by its place in `asked`.

    It is the sum over the answer's tokens of the logarithm of their probability, each behind the
    prompt and the tokens before it. A batch of prompts at a time; `answers` are token ids, at
    least one each.
    """
    for places, read in readings(model, processor, asked, batch_size):
        found = _scores(model, read, [answers[place] for place in places], batch_size)
        yield dict(zip(places, found, strict=True))


@torch.inference_mode()
def _scores(
    model: VtcForConditionalGeneration,
    before: Reading,
    answers: Sequence[Sequence[Sequence[int]]],
    batch_size: int,
) -> list[list[float]]:
    """The log-likelihoods of each row's answers."""
    first = before.logits.float().log_softmax(-1)
    scores = [[float(first[row, a[0]]) for a in own] for row, own in enumerate(answers)]
    longer = [
        (row, number)
        for row, own in enumerate(answers)
        for number, answer in enumerate(own)
        if len(answer) > 1
    ]
    for start in range(0, len(longer), batch_size):
        some = longer[start : start + batch_size]
        tokens = [answers[row][number] for row, number in some]
        rows = before.of([row for row, _ in some])
        logits = read_on(model, [answer[:-1] for answer in tokens], rows).float()
        for (row, number), answer, own in zip(some, tokens, logits, strict=True):
            scores[row][number] += _sum(own, answer[1:])
    return scores


def _sum(logits: Tensor, tokens: Sequence[int]) -> float:
    """The log-probabilities of tokens under logits [T, vocab] that may go on, added up."""
    wanted = torch.tensor(tokens, device=logits.device)
    own = logits[: len(tokens)].log_softmax(-1)
    return float(own.gather(1, wanted[:, None]).sum())
