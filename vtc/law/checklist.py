"""The reproducibility checklist of scaling laws, filled in from a fit: Markdown and JSON.

Items after Li, Kudugunta and Zettlemoyer (2025), "(Mis)Fitting: A Survey of Scaling Laws" (arXiv
2502.18969), in four blocks. An answer that the table does not hold says so: None, and in words.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vtc.law.cells import CONVENTIONS, family
from vtc.law.sentences import describe
from vtc.law.varpro import N_ANGLES, RADII
from vtc.tables.quantity import format_count

ABSENT = "not in the table that was fitted"

Row = Mapping[str, Any]
Block = list[tuple[str, str | None]]

_METHODS = {
    "varpro": (
        "variable projection: k and D in closed form, D clamped to [0, 1); the exponents by "
        "Levenberg-Marquardt to a relative change of 1e-14, D = 0 as a candidate of its own"
    ),
    "paper-grid": "the published brute-force grid of 5,000,000 cells, searched whole",
    "fixed-exponents": "alpha and beta given; k and D by linear least squares",
}


def checklist(
    laws: Sequence[Row],
    table: Sequence[Row],
    forms: Sequence[Row],
    settings: Mapping[str, Any],
    lacking: Sequence[str] = (),
) -> dict[str, Block]:
    """The four blocks: each item and its answer. `forms` may be empty, `table` is what was fitted.

    `settings` are those of the fit (`Request.settings`), `lacking` says what has no law, and why.
    """
    return {
        "Hypothesis": _hypothesis(laws, forms, settings),
        "Training set-up": _training(laws, table),
        "Data collection": _data(laws, table, settings),
        "Fitting": _fitting(laws, settings, lacking),
    }


def _hypothesis(laws: Sequence[Row], forms: Sequence[Row], settings: Mapping[str, Any]) -> Block:
    convention = settings["convention"]
    ranking = "; ".join(
        f"{row['task']}: {row['form']} AICc {row['aicc']:.1f}"
        for row in forms
        if row["aicc"] is not None
    )
    shared = f"; groups share {settings['share']}" if settings.get("share") else ""
    return [
        ("Form", f"Y = k N^-alpha V^-beta + D, k > 0, 0 <= D < 1 (arXiv 2411.03312){shared}"),
        (
            "Variables and units",
            "Y: error, 1 - score, a share; N: parameters of the LLM, in billions; V: visual "
            "tokens that enter the LLM",
        ),
        ("Parameters", "4: k, alpha, beta, D" if _sizes(laws) > 1 else "3: k, beta, D"),
        ("Derivation", "empirical; best V at fixed 2 N (Q + V) is Q / (alpha/beta - 1)"),
        (
            "How N, V and FLOPs are counted",
            f"N {convention} (column {CONVENTIONS[convention]}, else the catalog's); V as given; "
            "FLOPs 2 N (Q + V), the LLM's prefill (vtc/cost/flops.py)",
        ),
        ("Rival forms", ranking or "not compared"),
    ]


def _training(laws: Sequence[Row], table: Sequence[Row]) -> Block:
    first = laws[0]
    sizes = ", ".join(format_count(n) for n in sorted({n for law in laws for n in _ends(law)}))
    runs = len({(row.get("run_id"), row.get("visual_tokens")) for row in table})
    seeds = _distinct(table, "seed")
    again = "yes" if any("replicates" in law["flags"] for law in laws) else "no: one run a cell"
    return [
        (
            "Models",
            f"{max(law['n_sizes'] for law in laws)} LLM sizes (least and most: {sizes}); "
            f"backbones: {_distinct(table, 'backbone') or ABSENT}; families: "
            f"{', '.join(sorted({f for row in table if (f := family(row))})) or ABSENT}",
        ),
        (
            "Number of runs",
            f"{runs if table and 'run_id' in table[0] else first['n_points']}",
        ),
        ("Repeats with other seeds", f"{again}; seeds: {seeds or ABSENT}"),
        ("Compressors and encoders", _both(table)),
        ("Training data", None),
        ("How hyper-parameters were chosen", None),
        ("Shape of the models", None),
        ("Code of the training", None),
    ]


def _data(laws: Sequence[Row], table: Sequence[Row], settings: Mapping[str, Any]) -> Block:
    benchmarks = _distinct(table, "benchmark")
    items = {str(row["benchmark"]): row["n_items"] for row in table if row.get("n_items")}
    several = benchmarks is not None and "," in benchmarks
    left_out = "suspect rows left out" if settings["drop_suspect"] else "no row left out"
    held = f"; held out of the fit: {settings['holdout']}" if settings["holdout"] else ""
    return [
        ("Checkpoints", None),
        (
            "Points",
            f"{sum(law['n_points'] for law in laws)} in {len(laws)} "
            f"law{'s' * (len(laws) != 1)}; {left_out}{held}",
        ),
        (
            "Metrics and data sets",
            benchmarks and f"{benchmarks}; metrics: {_distinct(table, 'metric') or ABSENT}",
        ),
        (
            "Items",
            ", ".join(f"{name} {count}" for name, count in items.items()) or None,
        ),
        (
            "Transformations",
            ("mean of the benchmarks' errors, each with the same weight; " if several else "")
            + "error = 1 - score; no correction for chance",
        ),
    ]


def _fitting(laws: Sequence[Row], settings: Mapping[str, Any], lacking: Sequence[str]) -> Block:
    methods = list(dict.fromkeys(law["method"] for law in laws))
    intervals = list(dict.fromkeys(law["interval_method"] for law in laws))
    quality = "; ".join(
        f"{_name(law)}: rmse {law['rmse']:.4f}, R2 {law['r2']:.3f}"
        + (f", AICc {law['aicc']:.1f}" if law["aicc"] is not None else "")
        for law in laws
    )
    held = "; ".join(
        f"{_name(law)}: rmse {law['holdout_rmse']:.4f}, largest {law['holdout_max_ape']:.1%}"
        for law in laws
        if law.get("holdout_max_ape") is not None
    )
    flags = "; ".join(f"{_name(law)}: {', '.join(law['flags'])}" for law in laws if law["flags"])
    return [
        ("Objective", "sum of squared errors of Y, every point with the same weight"),
        ("Algorithm", "; ".join(_METHODS[name] for name in methods)),
        (
            "Initialisation",
            f"a grid of {N_ANGLES} directions x {len(RADII)} lengths of the exponents, whole; "
            "nothing random"
            if methods == ["varpro"]
            else "none",
        ),
        ("All points or some", "; ".join(["all but those said above", *lacking])),
        ("Goodness of fit", quality),
        (
            "Intervals",
            "; ".join(f"{name}, {settings['level']:.0%}" if name else "none" for name in intervals)
            + f"; {settings['n_draws']} draws, seed {settings['seed']}",
        ),
        ("What is not identified", flags or "nothing was flagged"),
        ("Extrapolation", held or "no point was held out"),
    ]


def markdown(blocks: Mapping[str, Block], laws: Sequence[Row], made: Mapping[str, Any]) -> str:
    """The checklist as a Markdown page, the laws in words below it."""
    inputs = [f"- `{one['path']}`, SHA-256 `{one['sha256']}`" for one in made["inputs"]]
    lines = ["# Scaling law: checklist", "", f"vtc {made['vtc_version']}, {made['created_at']}."]
    lines += [f"Command: `{' '.join(made['command'])}`", "", *inputs]
    for number, (title, items) in enumerate(blocks.items(), start=1):
        lines += ["", f"## {number}. {title}", "", "| item | answer |", "|---|---|"]
        lines += [f"| {item} | {_cell(answer)} |" for item, answer in items]
    lines += ["", "## The laws", ""]
    for law in laws:
        lines += [f"- {line}" if at == 0 else f"  - {line.strip()}"
                  for at, line in enumerate(describe(law))]  # fmt: skip
    return "\n".join(lines) + "\n"


def document(
    blocks: Mapping[str, Block], laws: Sequence[Row], forms: Sequence[Row], made: Mapping[str, Any]
) -> dict[str, Any]:
    """The checklist as one JSON object; the laws without their draws."""
    return {
        **made,
        "checklist": {
            title: [{"item": item, "answer": answer} for item, answer in items]
            for title, items in blocks.items()
        },
        "not_recorded": [
            item for items in blocks.values() for item, answer in items if answer is None
        ],
        "laws": [
            {name: cell for name, cell in law.items() if not name.startswith("draw_")}
            for law in laws
        ],
        "forms": [dict(row) for row in forms],
    }


def _cell(answer: str | None) -> str:
    return ABSENT if answer is None else answer.replace("|", "\\|").replace("\n", " ")


def _name(law: Row) -> str:
    return law["task"] if law.get("group") is None else f"{law['task']}, {law['group']}"


def _sizes(laws: Sequence[Row]) -> int:
    return max(law["n_sizes"] for law in laws)


def _ends(law: Row) -> tuple[int, int]:
    return law["n_params_min"], law["n_params_max"]


def _both(table: Sequence[Row]) -> str | None:
    named = (_distinct(table, "compressor"), _distinct(table, "encoder"))
    return None if named == (None, None) else "; ".join(name or ABSENT for name in named)


def _distinct(table: Sequence[Row], column: str) -> str | None:
    """The values of a column in order, or None if it is empty."""
    values = dict.fromkeys(str(row[column]) for row in table if row.get(column) is not None)
    return ", ".join(values) or None
