"""The answer to the paper's question in plain sentences."""

from vtc.catalog import encoders, llms
from vtc.cost.encoder import encoder_flops
from vtc.cost.flops import affordable_n_params
from vtc.recommend import words
from vtc.recommend.paper import Answer, Optimum, Question
from vtc.tables.quantity import format_count, format_flops

_ENCODER = "openai/clip-vit-large-patch14-336"


def explain(question: Question, answer: Answer) -> list[str]:
    """The answer and its grounds in plain sentences."""
    first = answer.rows[0]
    return [
        *words.law_sentences(question.law),
        *_optimum_sentences(question, answer.optimum),
        f"Deploy {first['model']} with {words.tokens(first['visual_tokens'])}: "
        f"{words.error_with_interval(first)}, {first['budget_share']:.0%} of the budget; "
        f"{words.best_of(answer.n_fitting, first)}.",
        *_more_tokens(question, first["visual_tokens"]),
        *words.extrapolations(question.law, answer.rows),
        *words.doubts(question.law, question.models),
        _what_is_left_out(first["flops"]),
    ]


def _more_tokens(question: Question, chosen: int) -> list[str]:
    """Why the fewest tokens are not what is chosen."""
    least = min(question.visual_tokens)
    if chosen == least:
        return []
    found = (
        words.tokens_gain_more(question.law),
        words.text_is_paid(question.law, question.text_tokens, least),
    )
    return words.not_the_answer(least, [reason for reason in found if reason])


def _what_is_left_out(flops: float) -> str:
    """What 2 N (Q + V) does not count; the usual encoder with its figure."""
    shape = encoders.shape(_ENCODER)
    seeing = encoder_flops(shape, shape.n_layers - 1)
    share = seeing / (seeing + flops)
    text = (
        "FLOPs are 2 N (Q + V), the LLM's prefill; vision encoder, compressor and generated tokens "
        f"come on top (CLIP ViT-L/14-336: {format_flops(seeing)} an image, {share:.0%} of the sum)."
    )
    if share > 0.5:
        text += " The encoder dominates: fewer visual tokens save little."
    return text + " --cost-model exact counts them."


def _optimum_sentences(question: Question, best: Optimum) -> list[str]:
    q = question.text_tokens
    why = _why(question, best)
    span, size_span = "", ""
    if best.low is not None and best.high is not None:
        ends = [affordable_n_params(question.flops, v, q) for v in (best.high, best.low)]
        span = f" [{best.low:.3g}, {best.high:.3g}]"
        size_span = f" [{format_count(ends[0])}, {format_count(ends[1])}]"
    lines = [
        f"Continuous optimum for {format_flops(question.flops)} at Q = {q:g}: "
        f"V* = {best.visual_tokens:.3g}{span} visual tokens, N* = "
        f"{format_count(best.n_params)}{size_span} parameters ({why})."
    ]
    counts = llms.counts(question.models, question.row["n_convention"])
    if best.n_params > max(counts):
        lines.append(
            f"N* is above the largest LLM to choose from ({format_count(max(counts))}): what it "
            "leaves of the budget buys visual tokens."
        )
    elif best.n_params < min(counts):
        lines.append(
            f"N* is below the smallest LLM to choose from ({format_count(min(counts))}): it must "
            "make do with fewer visual tokens."
        )
    return lines


def _why(question: Question, best: Optimum) -> str:
    if len(question.law.parts) > 1:
        return "where the error of the mix is lowest"
    alpha, beta = question.row["alpha"], question.row["beta"]
    if beta <= 0:
        return "more visual tokens do not lower the error: the fewest"
    if alpha <= beta:
        return f"alpha {alpha:.3g} <= beta {beta:.3g}: as many visual tokens as there are"
    text = f"Q / (alpha/beta - 1), alpha/beta = {alpha / beta:.3g}"
    if best.free != best.visual_tokens:
        edge = "fewest" if best.free < best.visual_tokens else "most"
        text += f"; {best.free:.3g} clipped to the {edge} visual tokens there are"
    return text
