"""From the flags of `recommend` to its question under real costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from vtc.errors import InputError

_ENCODER, _COMPRESSOR = "openai/clip-vit-large-patch14-336", "tokenpacker"
_KNOWN_QUERY = ":query-cached"
_BUDGETS = {
    "flops": "--flops",
    "ttft": "--latency",
    "latency": "--latency",
    "throughput": "--fps",
    "cost": "--budget-usd-per-1k-images",
}
# What asks for real costs, in place of 2 N (Q + V).
_REAL = (
    *("objective", "gpu", "latency", "fps", "usd_per_1k", "usd_per_hour", "q_cached", "generated"),
    *("batch", "images", "weights", "kv", "vram", "encoder", "compressor", "costs"),
    *("compute_efficiency", "bandwidth_efficiency"),
)
_OF_PAPER = ("generated", "q_cached")


def is_paper(flags: Mapping[str, Any]) -> bool:
    """Whether the paper's question is asked: --flops, and nothing of a deployment.

    Raises InputError for flags that contradict --cost-model paper, or without any budget.
    """
    real = [name for name in _REAL if flags[name] is not None]
    model = flags["cost_model"]
    if model == "paper":
        wrong = [name for name in real if name not in _OF_PAPER and flags[name] != "flops"]
        if wrong:
            raise InputError(
                f"--cost-model paper counts 2 N (Q + V) alone and knows no {_flag(wrong[0])}; "
                "leave one of them away"
            )
    if not any(flags[name] for name in ("flops", "latency", "fps", "usd_per_1k")):
        raise InputError(
            "no budget: give --flops, or with --gpu one of --latency, --fps and "
            "--budget-usd-per-1k-images"
        )
    if model == "paper" and not flags["flops"]:
        raise InputError("--cost-model paper needs its budget in FLOPs: give --flops")
    return model == "paper" or (model is None and not real)


def deployment(flags: Mapping[str, Any], mix: Any, models: Sequence[Any]) -> Any:
    """The question; raises InputError for flags that contradict one another."""
    from vtc.cost.inference import Service
    from vtc.recommend.deploy import Deployment

    objective, limits = _budgets(flags)
    name = flags["compressor"] or (None if flags["encoder"] == "none" else _COMPRESSOR)
    compressor = (name or "none").removesuffix(_KNOWN_QUERY)
    service = Service(
        text_tokens=flags["text_tokens"],
        cached_tokens=flags["q_cached"] or 0.0,
        generated_tokens=1.0 if flags["generated"] is None else flags["generated"],
        images=flags["images"] or 1,
        batch=flags["batch"] or 1,
        weights=flags["weights"] or "bf16",
        kv=flags["kv"] or "bf16",
        question_known=bool(name and name.endswith(_KNOWN_QUERY)),
    )
    encoder, shape = _encoder(flags["encoder"], compressor)
    if shape is not None and compressor != "none":
        from vtc.compress.choices import check_asked, check_name

        check_name(compressor)
        supported = _supported(compressor, shape, models)
        tokens = flags["visual_tokens"] or _default_tokens(mix, supported)
        if not set(tokens) <= set(supported):
            _refuse_layers(compressor, supported, tokens)
            check_asked([compressor], shape.grid, tokens)
    else:
        tokens = flags["visual_tokens"] or _default_tokens(mix, None)
    measured = None
    if flags["costs"]:
        from vtc.recommend.measured import read_costs

        measured = read_costs(
            flags["costs"], service, encoder or None, compressor, bool(flags["gpu"])
        )
    devices = _devices(flags, limits)
    return Deployment(
        law=mix,
        models=models,
        visual_tokens=tokens,
        service=service,
        limits=limits,
        objective=objective,
        devices=devices,
        encoder=encoder,
        encoder_shape=shape,
        compressor="" if compressor == "none" else compressor,
        compressor_of=_compressor_of(compressor, shape),
        measured=measured,
        top=flags["top"] or (5 if len(devices) < 2 else 1),
    )


def _budgets(flags: Mapping[str, Any]) -> tuple[Any, dict[str, float]]:
    """The objective, and all budgets in its units: seconds, images a second, USD an image."""
    timed = "ttft" if flags["objective"] == "ttft" else "latency"
    given = {
        "flops": flags["flops"],
        timed: flags["latency"],
        "throughput": flags["fps"],
        "cost": flags["usd_per_1k"] and flags["usd_per_1k"] / 1000,
    }
    limits = {name: limit for name, limit in given.items() if limit}
    objective = flags["objective"] or next(iter(limits))
    if objective not in limits:
        raise InputError(f"--objective {objective} needs its budget: give {_BUDGETS[objective]}")
    if flags["usd_per_1k"] and not flags["usd_per_hour"]:
        raise InputError("--budget-usd-per-1k-images needs the GPU's price: give --usd-per-hour")
    return objective, limits


def _devices(flags: Mapping[str, Any], limits: Mapping[str, float]) -> list[Any]:
    from vtc.catalog import gpus
    from vtc.cost.roofline import machine
    from vtc.recommend.grid import Device

    names, price = flags["gpu"] or (), flags["usd_per_hour"]
    if not names:
        wrong = [name for name in ("compute_efficiency", "bandwidth_efficiency") if flags[name]]
        timed = [_BUDGETS[name] for name in limits if name != "flops"]
        if (timed or wrong or price) and not flags["costs"]:
            what = timed[0] if timed else _flag(wrong[0] if wrong else "usd_per_hour")
            raise InputError(f"{what} needs a GPU: give --gpu (`vtc catalog gpus`), or --costs")
        return [Device("", None, flags["vram"], price)]
    cards = gpus.catalog() if "all" in names else [gpus.find(name) for name in names]
    if price and len(cards) > 1:
        raise InputError("--usd-per-hour is the price of one GPU; ask for several one by one")
    efficiencies = (flags["compute_efficiency"], flags["bandwidth_efficiency"])
    return [
        Device(gpu.gpu, machine(gpu, *efficiencies), flags["vram"] or gpu.usable_bytes, price)
        for gpu in cards
    ]


def _encoder(name: str | None, compressor: str) -> tuple[str, Any]:
    if name == "none":
        if compressor != "none":
            raise InputError(f"--encoder none leaves --compressor {compressor} nothing to compress")
        return "", None
    from vtc.catalog import encoders
    from vtc.commands.parts import shape_of

    return name or _ENCODER, shape_of(encoders.shape, name or _ENCODER)


def _default_tokens(mix: Any, supported: Sequence[int] | None) -> tuple[int, ...]:
    """The usual V that the law covers and the compressor can make."""
    from vtc import recommend as adviser

    usual = adviser.default_visual_tokens(mix.row)
    if supported is None:
        return usual
    return tuple(v for v in usual if v in supported) or tuple(supported[-7:])


def _supported(compressor: str, shape: Any, models: Sequence[Any]) -> Sequence[int]:
    """The V that a compressor can make of the encoder's patches for each of the LLMs."""
    from vtc.compress.choices import KNOWN
    from vtc.compress.pruning import averages
    from vtc.recommend.models import with_shapes

    known = KNOWN[compressor]
    if known.schedule is None:
        return known.supported(shape.grid)
    llms = [llm for _, llm in with_shapes(models)]
    each = [averages(known.schedule, llm.n_layers, shape.n_patches) for llm in llms]
    return max(each, key=lambda own: own[0])


def _refuse_layers(compressor: str, supported: Sequence[int], tokens: Sequence[int]) -> None:
    """Raise InputError for V that an LLM cannot have as the mean over its layers."""
    from vtc.compress.choices import KNOWN, listed

    if KNOWN[compressor].schedule is not None:
        wrong = min(set(tokens) - set(supported))
        raise InputError(
            f"--compressor {compressor}: not every LLM here can have {wrong} visual tokens a layer "
            f"on average, as all of an image enter the first layers; choose from "
            f"{listed(supported)}"
        )


def _compressor_of(name: str, shape: Any) -> Any:
    """What a compressor costs for an LLM at several V, as arrays."""
    from functools import cache

    import numpy as np

    from vtc.commands.dropping import dropping_of
    from vtc.commands.stating import stated_of
    from vtc.compress.choices import refuse_fusing
    from vtc.cost.encoder import encoder_flops
    from vtc.cost.inference import Compressing

    refuse_fusing(name, "which 'vtc recommend' does not count")
    if name == "none" or shape is None:
        return lambda llm, tokens: Compressing(0.0, 0.0)

    # LLMs of one width share it.
    @cache
    def of(width: int, tokens: tuple[int, ...]) -> Compressing:
        found = [stated_of(name, shape, width, v) for v in tokens]
        n_params, flops = (np.array([one[at] for one in found], dtype=float) for at in (0, 1))
        first, merged = found[0], None
        if first.patches_left:
            each = [encoder_flops(shape, one.level, one.patches_left) for one in found]
            merged = np.array(each, dtype=float)
        cost = Compressing(n_params, flops, first.level, first.levels, first.needs_query)
        return cost._replace(encoder=merged)

    def at(llm: Any, tokens: Sequence[int]) -> Compressing:
        cost = of(llm.hidden_size, tuple(tokens))
        return cost._replace(dropping=dropping_of(name, llm, shape.n_patches, tokens))

    return at


def llms_of(flags: Mapping[str, Any]) -> list[Any]:
    """The LLMs to choose from; raises InputError for flags that contradict one another."""
    from vtc.catalog import llms
    from vtc.commands.parts import shape_of
    from vtc.recommend import models

    if flags["llm"] and (flags["models"] or flags["family"]):
        raise InputError("--llm names the LLMs to choose from; leave --family and --models away")
    if flags["llm"]:
        return models.of_sources(flags["llm"], lambda source: shape_of(llms.shape, source))
    if flags["models"]:
        return models.read_models(flags["models"], flags["family"])
    return models.of_families(flags["family"] or ("qwen1.5",))


def _flag(name: str) -> str:
    special = {"generated": "--g", "usd_per_1k": "--budget-usd-per-1k-images"}
    return special.get(name, f"--{name.replace('_', '-')}")
