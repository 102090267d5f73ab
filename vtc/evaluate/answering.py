"""Questions put to a run: it writes its answers, or finds the likeliest of those given."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from vtc.evaluate.answered import Answer
from vtc.evaluate.candidates import Candidate, likeliest
from vtc.evaluate.prompts import Prompt
from vtc.model.generation import answer_each
from vtc.model.likelihood import AnswerTokens, likelihoods
from vtc.model.prompts import Asked
from vtc.model.run import Run

GENERATION, LIKELIHOOD = "generation", "likelihood"
"""How an answer is found."""


class Question(NamedTuple):
    """An item's place, its prompt, the features it shows, and the answers it can have, if any."""

    place: int
    prompt: Prompt
    shown: tuple[Tensor, ...]
    options: tuple[Candidate, ...] = ()


def answer(
    run: Run, questions: Sequence[Question], max_new_tokens: int, batch_size: int
) -> Iterator[dict[int, Answer]]:
    """The answers to questions by the items' places, a batch at a time.

    Those with options are answered by likelihood, the others by at most `max_new_tokens` tokens.
    """
    open_ones = [question for question in questions if not question.options]
    closed = [question for question in questions if question.options]
    given = (run.model, run.processor)
    for found in answer_each(*given, as_asked(open_ones), max_new_tokens, batch_size):
        yield {
            question.place: Answer(
                text, n_generated, question.prompt.n_text_tokens, GENERATION, None
            )
            for number, (text, n_generated) in found.items()
            for question in [open_ones[number]]
        }
    tokens = AnswerTokens(*given) if closed else None
    spelled = [
        [tokens.of(spelling) for option in question.options for spelling in option.spellings]
        for question in closed
        if tokens is not None
    ]
    for scores in likelihoods(*given, as_asked(closed), spelled, batch_size):
        yield {
            question.place: Answer(
                _best(question, own), 0, question.prompt.n_text_tokens, LIKELIHOOD, None
            )
            for number, own in scores.items()
            for question in [closed[number]]
        }


def as_asked(questions: Sequence[Question]) -> list[Asked]:
    """Questions as models take them."""
    return [Asked(q.prompt.ids, q.shown, q.prompt.query) for q in questions]


def _best(question: Question, scores: Sequence[float]) -> str:
    """The likeliest option; `scores` are those of all spellings of all options, in order."""
    rest = iter(scores)
    by_option = [[next(rest) for _ in option.spellings] for option in question.options]
    return likeliest(question.options, by_option)
