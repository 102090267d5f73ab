"""What a compressor that reads the question adds to a training: rows, and passes of the LLM."""

from collections.abc import Mapping
from typing import Any

from vtc.catalog.shapes import LlmShape
from vtc.cost.data import DataFacts
from vtc.cost.llm import prefill_flops


def rows_of_sample(data: DataFacts, settings: Mapping[str, Any]) -> float:
    """Rows that a sample with images becomes: one a question, unless all share the first."""
    return 1.0 if settings.get("query_scope") == "first" else max(data.questions, 1.0)


def row_text(data: DataFacts, settings: Mapping[str, Any]) -> float:
    """Mean text tokens of such a row: of a dialogue what stands before it too, of all half."""
    n_rows = rows_of_sample(data, settings)
    if settings.get("turns") == "independent":
        return data.text_tokens / n_rows
    return data.text_tokens * (n_rows + 1) / (2 * n_rows)


def query_tokens(data: DataFacts) -> float:
    """Mean tokens of a question: as stated, else of the text what is not supervised."""
    return data.query_tokens or (data.text_tokens - data.supervised_tokens) / data.questions


def query_flops(llm: LlmShape, tokens: float) -> float:
    """FLOPs of the LLM over one question, forward, without the head."""
    return prefill_flops(llm, tokens, 0, attention="causal")


def training_query_flops(
    llm: LlmShape, data: DataFacts, settings: Mapping[str, Any], samples: float, frozen: bool
) -> float:
    """FLOPs of reading the questions of a training over `samples` samples.

    A `frozen` LLM reads each distinct one once; one that trains reads them at every step.
    """
    passes = samples * data.image_share * rows_of_sample(data, settings)
    if frozen and data.distinct_questions:
        passes = min(passes, data.distinct_questions)
    return passes * query_flops(llm, query_tokens(data))
