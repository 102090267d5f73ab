"""Questions of three words with an answer of one word, about scenes and about documents."""

import numpy as np

from vtc.lab import words
from vtc.lab.facts import Facts
from vtc.lab.pages import Pages

LENGTH = 3
"""Words of a question."""


def about_scenes(rng: np.random.Generator, pages: Pages, facts: Facts, n: int) -> np.ndarray:
    """Ask `n` times "<role> in <cell>" of each scene: word ids [B, n, 4], the answer last.

    As documents are asked, so that both tasks look in the same way. Roles come at their Zipf
    frequency, objects at random; questions may repeat.
    """
    images = np.arange(len(pages))[:, None]
    thing = (rng.random((len(pages), n)) * pages.counts[:, None]).astype(int)
    role = rng.choice(words.span("role").size, thing.shape, p=facts.role_weights)
    kind = pages.content[images, thing] - words.span("kind").start
    fields = (
        words.span("role").start + role,
        np.full_like(role, words.ID["in"]),
        pages.places()[images, thing],
        facts.answers[kind, role],
    )
    return np.stack(fields, axis=-1)


def about_kinds(rng: np.random.Generator, facts: Facts, n: int) -> np.ndarray:
    """`n` facts without an image, "<role> of <kind>": word ids [n, 4], the answer last.

    Roles and colours come at their frequencies, shapes all alike.
    """
    colour = rng.choice(len(words.COLOURS), n, p=facts.colour_weights)
    kind = rng.integers(0, len(words.SHAPES), n) * len(words.COLOURS) + colour
    role = rng.choice(words.span("role").size, n, p=facts.role_weights)
    fields = (
        words.span("role").start + role,
        np.full_like(role, words.ID["of"]),
        words.span("kind").start + kind,
        facts.answers[kind, role],
    )
    return np.stack(fields, axis=-1)


def about_documents(rng: np.random.Generator, pages: Pages, n: int) -> np.ndarray:
    """Ask `n` times "letter in <cell>" of each document: word ids [B, n, 4], answer last.

    Only cells that hold a character are asked, in random order, repeating once all were asked.
    """
    images = np.arange(len(pages))[:, None]
    order = np.argsort(np.where(pages.content > 0, rng.random(pages.content.shape), 2.0), axis=1)
    thing = order[images, np.arange(n)[None] % pages.counts[:, None]]
    letter = np.full_like(thing, words.ID["letter"])
    fields = (pages.places(), pages.content)
    return np.stack(
        [letter, np.full_like(thing, words.ID["in"]), *(field[images, thing] for field in fields)],
        axis=-1,
    )


CAPTION_THINGS = 3
"""Things a caption tells of."""


def captions(rng: np.random.Generator, pages: Pages) -> np.ndarray:
    """A caption of each image: cell and content of three of its things: word ids [B, 6].

    They are in reading order; where there are fewer, some are told twice.
    """
    images = np.arange(len(pages))[:, None]
    order = np.argsort(np.where(pages.content > 0, rng.random(pages.content.shape), 2.0), axis=1)
    thing = order[images, np.arange(CAPTION_THINGS)[None] % pages.counts[:, None]]
    thing = np.take_along_axis(thing, np.argsort(pages.cells[images, thing], axis=1), axis=1)
    fields = (pages.places(), pages.content)
    told = np.stack([field[images, thing] for field in fields], axis=-1)
    return told.reshape(len(pages), -1)


def distinct(asked: np.ndarray, n: int) -> np.ndarray:
    """The first `n` distinct questions of one image [m, 4], in the order asked; fewer if so."""
    _, first = np.unique(asked, axis=0, return_index=True)
    return asked[np.sort(first)[:n]]


def as_text(question: np.ndarray) -> tuple[str, str]:
    """One question [4] in words: the question and its answer."""
    *asked, answer = (words.WORDS[i] for i in question)
    return " ".join(asked), answer
