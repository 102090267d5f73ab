"""A law, a budget and a catalog in; ranked choices of an LLM and a number of visual tokens out.

`paper` answers the paper's question, a budget of 2 N (Q + V) FLOPs, in pure Python. `deploy`
answers for real costs: exact FLOPs, a GPU, its memory and time; it takes NumPy and is not
loaded here.
"""

from vtc.recommend.laws import law_file, law_row, read_mix
from vtc.recommend.models import read_models
from vtc.recommend.paper import (
    VISUAL_TOKENS,
    Answer,
    Optimum,
    Question,
    default_visual_tokens,
    optimum,
    recommend,
)
from vtc.recommend.paper_words import explain

__all__ = [
    "VISUAL_TOKENS",
    "Answer",
    "Optimum",
    "Question",
    "default_visual_tokens",
    "explain",
    "law_file",
    "law_row",
    "optimum",
    "read_mix",
    "read_models",
    "recommend",
]
