"""What there is to know: who the maker, owner, ... of each kind of thing is, and how often asked.

Facts are asked with Zipf frequencies, so that what an LLM gets right is the share of them it has
room for: the knowledge "quanta" of Michaud et al. (arXiv 2303.13506), whose Zipf law turns
capacity into a power law of the error.
"""

from dataclasses import dataclass

import numpy as np

from vtc.lab import words


@dataclass(frozen=True)
class Facts:
    """A table of answers and the frequencies of what is asked.

    answers [kinds, roles]: word id of the answer; role 0 is the kind's own colour, which is seen
    and not known. colour_weights [colours]: how often each colour of a shape is met.
    role_weights [roles]: how often each role is asked.
    """

    answers: np.ndarray
    colour_weights: np.ndarray
    role_weights: np.ndarray


def make(seed: int, *, colour_zipf: float, role_zipf: float, colour_share: float) -> Facts:
    """A fact table from a seed; Zipf exponents >= 0; `colour_share` of questions ask the colour."""
    rng = np.random.default_rng([seed, 1])
    kinds, roles, people = words.span("kind"), words.span("role"), words.span("person")
    answers = people.start + rng.integers(0, people.size, (kinds.size, roles.size))
    answers[:, 0] = words.span("colour").start + np.arange(kinds.size) % len(words.COLOURS)
    known = zipf(roles.size - 1, role_zipf) * (1 - colour_share)
    return Facts(
        answers, zipf(len(words.COLOURS), colour_zipf), np.concatenate([[colour_share], known])
    )


def zipf(n: int, exponent: float) -> np.ndarray:
    """Probabilities [n] proportional to 1 / rank^exponent."""
    weights = 1 / np.arange(1, n + 1) ** exponent
    return weights / weights.sum()
