"""The table of a comparison of compressors. Part of `specs`."""

from vtc.tables.spec import Column, Table

_PLACE = (
    "only (nothing to compare with), best (told apart from all others), tied (not told apart from "
    "the best or, itself the best, from the next), behind"
)

COMPARISON = Table(
    "comparison",
    1,
    "compressors side by side, one row a task (or benchmark), LLM, encoder, compressor and V",
    (
        Column("task", "string", "task family"),
        Column("benchmark", "string", "benchmark, with --by benchmark", nullable=True),
        Column("backbone", "string", "name of the LLM"),
        Column("n_params", "int", "nominal parameter count of the LLM"),
        Column("encoder", "string", "name of the vision encoder", nullable=True),
        Column(
            "compressor",
            "string",
            "token compressor; with its settings where the comparison has several of them",
        ),
        Column("compressor_settings", "string", "its settings that are not defaults", "", True),
        Column("visual_tokens", "int", "visual tokens entering the LLM", "tokens"),
        Column("n_runs", "int", "runs (training seeds) averaged"),
        Column("seeds", "string", "their seeds; empty: not known", nullable=True),
        Column("n_items", "int", "items of each run", nullable=True),
        Column("score", "float", "mean score over the runs", "share in [0, 1]"),
        Column("score_low", "float", "lower end of its interval", nullable=True),
        Column("score_high", "float", "upper end of its interval", nullable=True),
        Column("stderr_seeds", "float", "its standard error by training seeds", nullable=True),
        Column("stderr_items", "float", "its standard error by the images asked", nullable=True),
        Column("chance", "float", "score of the best constant answer", "share", nullable=True),
        Column("flops", "float", "FLOPs up to the first answer token, all in all", "FLOP", True),
        Column("flops_encoder", "float", "those of the vision encoder", "FLOP", True),
        Column("flops_compressor", "float", "those of the compressor", "FLOP", True),
        Column(
            "flops_query",
            "float",
            "those of reading the question for it: by the LLM, or by layers that fuse it",
            "FLOP",
            True,
        ),
        Column("flops_prefill", "float", "those of the LLM's prefill", "FLOP", True),
        Column("time_ms", "float", "measured time to the first token (--costs)", "ms", True),
        Column("same_v", "string", f"place among those at the same V: {_PLACE}"),
        Column("same_v_best", "string", "best compressor at this V"),
        Column("same_v_difference", "float", "score minus the best one's", nullable=True),
        Column("same_v_low", "float", "lower end of the difference's interval", nullable=True),
        Column("same_v_high", "float", "upper end", nullable=True),
        Column(
            "same_cost",
            "string",
            "place among those at the same cost (FLOPs, or time with --costs), likewise",
            nullable=True,
        ),
        Column("same_cost_best", "string", "best compressor at this cost", nullable=True),
        Column("same_cost_best_v", "float", "the V that it has for it", "tokens", nullable=True),
        Column(
            "same_cost_how",
            "string",
            "measured, interpolated between two V, or cheaper: its largest V measured costs less",
            nullable=True,
        ),
        Column("same_cost_difference", "float", "score minus the best one's", nullable=True),
        Column("same_cost_low", "float", "lower end of the difference's interval", nullable=True),
        Column("same_cost_high", "float", "upper end", nullable=True),
        Column(
            "gap_closed",
            "float",
            "share of the way from the floor to the uncompressed model; empty: no gap is told",
            "share",
            nullable=True,
        ),
        Column("gap_closed_low", "float", "lower end of its interval", nullable=True),
        Column("gap_closed_high", "float", "upper end of its interval", nullable=True),
        Column("floor", "string", "what the floor is", nullable=True),
        Column(
            "next_best", "string", "of the best at this V: the best other compressor", nullable=True
        ),
        Column(
            "gap_closed_next",
            "float",
            "share of the way from that one to the uncompressed model (the paper's reading)",
            "share",
            nullable=True,
        ),
        Column("gap_closed_next_low", "float", "lower end of its interval", nullable=True),
        Column("gap_closed_next_high", "float", "upper end of its interval", nullable=True),
        Column(
            "beta",
            "float",
            "the compressor's exponent of V on this task, of vtc fit; empty: not told",
            nullable=True,
        ),
        Column("beta_low", "float", "lower end of its interval", nullable=True),
        Column("beta_high", "float", "upper end of its interval", nullable=True),
        Column("beta_flags", "string", "flags of that fit", nullable=True),
        Column(
            "beta_d0",
            "float",
            "beta with D held at 0: the slope of -ln(error) over ln V",
            nullable=True,
        ),
        Column("beta_d0_low", "float", "lower end of its interval", nullable=True),
        Column("beta_d0_high", "float", "upper end of its interval", nullable=True),
        Column("level", "float", "coverage the intervals aim at"),
    ),
)
