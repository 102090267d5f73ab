"""The world's images as LLaVA JSON rows and benchmark rows."""

from typing import Any

import numpy as np

from vtc.lab import questions, words
from vtc.lab.pages import Pages

Row = dict[str, Any]


def pretraining_row(name: str, image: str, pages: Pages, index: int, caption: np.ndarray) -> Row:
    """A caption, and all regions (their words and centres, as shares of the image)."""
    side = words.SIDE
    regions = [
        {
            "text": pages.region_text(index, thing),
            "x": round((int(pages.cells[index, thing]) % side + 0.5) / side, 4),
            "y": round((int(pages.cells[index, thing]) // side + 0.5) / side, 4),
        }
        for thing in pages.reading_order(index)
    ]
    told = " ".join(words.WORDS[i] for i in caption)
    turns = [
        {"from": "human", "value": words.IMAGE},
        {"from": "gpt", "value": told},
    ]
    return {"id": name, "image": image, "conversations": turns, "regions": regions}


def finetuning_row(name: str, image: str, asked: np.ndarray, n: int) -> Row:
    """A conversation of up to `n` distinct questions from `asked` [m, 4]; the image comes first."""
    turns = []
    for number, question in enumerate(questions.distinct(asked, n)):
        text, answer = questions.as_text(question)
        mark = f"{words.IMAGE}\n" if number == 0 else ""
        turns.append({"from": "human", "value": mark + text})
        turns.append({"from": "gpt", "value": answer})
    return {"id": name, "image": image, "conversations": turns}


def benchmark_rows(name: str, image: str, asked: np.ndarray, n: int) -> list[Row]:
    """Up to `n` distinct questions from `asked` [m, 4] as items of a benchmark."""
    rows = []
    for number, question in enumerate(questions.distinct(asked, n)):
        text, answer = questions.as_text(question)
        rows.append(
            {"id": f"{name}-{number}", "image": image, "question": text, "answers": [answer]}
        )
    return rows
