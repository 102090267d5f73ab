"""What `recommend` says: rows, sentences, and the columns that a person sees, with headings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Answer = tuple[list[dict[str, Any]], list[str], dict[str, str]]
_ALWAYS = {"rank": "rank", "model": "model", "visual_tokens": "V"}
_ERROR = {"error": "error", "interval": "interval", "p_best": "best", "regret": "regret"}
_OWN = {
    "flops": "FLOP",
    "ttft_ms": "TTFT ms",
    "latency_ms": "ms",
    "images_per_s": "images/s",
}


def of_paper(flags: Mapping[str, Any], mix: Any, models: Sequence[Any]) -> Answer:
    """The paper's question: 2 N (Q + V), generated tokens counted as text."""
    from vtc import recommend as adviser

    text = flags["text_tokens"] + (flags["generated"] or 0.0)
    tokens = flags["visual_tokens"] or adviser.default_visual_tokens(mix.row)
    question = adviser.Question(
        flags["flops"], text, mix.name, mix.row, models, tokens, flags["top"] or 5, mix
    )
    answer = adviser.recommend(question)
    columns = {**_ALWAYS, "n_params": "N", "flops": "FLOP", "budget_share": "budget", **_ERROR}
    return answer.rows, adviser.explain(question, answer), columns


def of_deployment(flags: Mapping[str, Any], mix: Any, models: Sequence[Any]) -> Answer:
    """Real costs. Raises NoAnswerError if nothing fits any GPU."""
    from vtc.commands import deploying
    from vtc.errors import NoAnswerError
    from vtc.recommend.deploy import advise
    from vtc.recommend.deploy_words import explain
    from vtc.recommend.faults import why_nothing_fits

    question = deploying.deployment(flags, mix, models)
    advice = advise(question)
    empty = [why_nothing_fits(question, advice, v) for v in advice.views if not v.rows]
    if not advice.rows:
        raise NoAnswerError("; ".join(empty))
    lines = [*explain(question, advice), *(f"{text[0].upper()}{text[1:]}." for text in empty)]
    return advice.rows, lines, _columns(question, advice.rows)


def _columns(question: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The columns of a deployment: its own cost first, then what else is known."""
    several = len(question.devices) > 1
    columns = {"gpu": "GPU", **_ALWAYS} if several else {**_ALWAYS}
    columns = {name: heading for name, heading in columns.items() if name != "rank" or several}
    columns |= _ERROR
    if rows[0].get("latency_ms") is None:
        columns["flops"] = "FLOP"
    else:
        own = {"flops": "flops", "ttft": "ttft_ms", "throughput": "images_per_s"}
        own = own.get(question.objective, "latency_ms")
        columns |= {own: _OWN[own], "bound": "bound"}
    if rows[0].get("usd_per_1k_images") is not None:
        columns["usd_per_1k_images"] = "$/1k"
    return {**columns, "memory_peak": "GB"}


def shown(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows as a person reads them."""
    return [{name: _cell(name, row) for name in columns} for row in rows]


def _cell(name: str, row: Mapping[str, Any]) -> Any:
    if name == "interval":
        return _interval(row)
    if name == "error":
        return f"{row[name]:.4f}" + "*" * row["extrapolates"]
    value = row.get(name)
    return value if value is None or name not in _SHORT else _SHORT[name](value)


def _interval(row: Mapping[str, Any]) -> str | None:
    if row["error_low"] is None:
        return None
    return f"{row['error_low']:.3f}-{row['error_high']:.3f}"


def _flops(value: float) -> str:
    from vtc.tables.quantity import format_flops

    return format_flops(value).removesuffix("FLOP")


def _count(value: float) -> str:
    from vtc.tables.quantity import format_count

    return format_count(value)


def _three(value: float) -> float | int:
    """Three significant digits, thousands written out."""
    short = float(f"{value:.3g}")
    return int(short) if 1000 <= short < 1e9 else short


_SHORT: dict[str, Callable[[Any], Any]] = {
    "n_params": _count,
    "flops": _flops,
    "budget_share": lambda value: f"{value:.0%}",
    "p_best": lambda value: f"{value:.0%}",
    "regret": lambda value: f"{value:.4f}",
    "ttft_ms": _three,
    "latency_ms": _three,
    "images_per_s": _three,
    "usd_per_1k_images": _three,
    "memory_peak": lambda value: float(f"{value / 1e9:.3g}"),
}
