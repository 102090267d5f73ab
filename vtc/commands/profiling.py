"""The models and settings of `vtc profile`, and what it says of the machine."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtc.errors import InputError

_USUAL = (1, 16, 144)


@dataclass(frozen=True)
class Setting:
    """The flags of `vtc profile`."""

    subject: str
    encoder: str
    compressor: str
    visual_tokens: tuple[int, ...] | None
    text_tokens: tuple[int, ...]
    q_cached: tuple[int, ...]
    batch: tuple[int, ...]
    generated: int
    dtype: str | None
    device: str
    repeats: int


@dataclass(frozen=True)
class Subject:
    """What is measured: the model, names for its rows, its shapes, the V; whether it is a run."""

    model: Any
    names: dict[str, str]
    llm: Any
    encoder: Any
    visual_tokens: tuple[int, ...]
    is_run: bool


def measured(setting: Setting) -> tuple[list[dict[str, Any]], Any]:
    """Rows of COSTS, and the machine whose roofline fits them."""
    import torch

    from vtc import console
    from vtc.cost import measure
    from vtc.cost.inference import Compressing, Service
    from vtc.model.shaped import give_compressor

    device = _device(setting.device)
    dtype = setting.dtype or ("bf16" if device == "cuda" else "fp32")
    subject = _subject(setting, device, dtype)
    model: Any = subject.model
    rows, points = [], []
    asked = (subject.visual_tokens, setting.text_tokens, setting.q_cached, setting.batch)
    grid = list(itertools.product(*asked))
    with console.progress("measuring", len(grid)) as advance:
        for v, q, cached, batch in grid:
            if not subject.is_run and model.config.visual_tokens != v:
                give_compressor(model, v)
            fed = v * model.config.repeat_visual_tokens
            service = Service(q, cached, setting.generated, 1, batch)
            timing = measure.measure(model, service, v, setting.repeats)
            compressor = model.model.compressor
            cost = Compressing(
                sum(weight.numel() for weight in compressor.parameters()),
                float(compressor.flops()),
                max(compressor.request.levels),
                len(compressor.request.levels),
                compressor.needs_query,
                encoder=_merging_flops(subject.encoder, compressor),
            )
            points += measure.points(
                subject.llm,
                subject.encoder,
                cost,
                fed,
                service,
                timing,
                4 if dtype == "fp32" else 2,
            )
            own = {**subject.names, "device": _name(device, torch), "dtype": dtype}
            rows.append({**own, **_row(service, fed, timing), "n_repeats": setting.repeats})
            advance(1)
    return rows, measure.calibrate(points)


def _row(service: Any, fed: int, found: Any) -> dict[str, Any]:
    times = {name: 1e3 * seconds for name, seconds in found.seconds.items()}
    return {
        "batch": service.batch,
        "images": 1,
        "visual_tokens": fed,
        "text_tokens": float(service.text_tokens),
        "cached_prefix": float(service.cached_tokens),
        "generated_tokens": float(service.generated_tokens),
        "encoder_ms": times["encoder"],
        "projector_ms": times["compressor"],
        "prefill_ms": times["prefill"],
        "decode_ms_per_token": times.get("decode"),
        "peak_bytes": found.peak_bytes or None,
        "spread": found.spread,
    }


def _merging_flops(encoder: Any, compressor: Any) -> float | None:
    """FLOPs of the encoder where patches merge inside it; None for any other compressor."""
    from vtc.cost.encoder import encoder_flops

    if not compressor.patches_left:
        return None
    level = max(compressor.request.levels)
    return float(encoder_flops(encoder, level, compressor.patches_left))


def _subject(setting: Setting, device: str, dtype: str) -> Subject:
    import torch

    kind = torch.float32 if dtype == "fp32" else torch.bfloat16
    if (Path(setting.subject) / "manifest.json").is_file():
        return _run(setting, device, kind)
    from vtc.catalog import encoders, llms
    from vtc.commands.parts import shape_of
    from vtc.compress.choices import check_asked, check_name, refuse_fusing, refuse_pruning
    from vtc.model.shaped import random_model

    check_name(setting.compressor)
    refuse_pruning([setting.compressor], ", which 'vtc profile' does not time")
    refuse_fusing(setting.compressor, "which 'vtc profile' does not time")
    llm = shape_of(llms.shape, setting.subject)
    encoder = shape_of(encoders.shape, setting.encoder)
    tokens = setting.visual_tokens or _USUAL
    check_asked([setting.compressor], encoder.grid, tokens)
    model = random_model(encoder, llm, setting.compressor, tokens[0], kind, device)
    names = {
        "subject": setting.subject,
        "encoder": setting.encoder,
        "compressor": setting.compressor,
    }
    return Subject(model, names, llm, encoder, tokens, False)


def _run(setting: Setting, device: str, kind: Any) -> Subject:
    from vtc.catalog.shapes import encoder_from_config, llm_from_config
    from vtc.compress.choices import refuse_fusing
    from vtc.model.run import load_run, read_manifest

    refuse_fusing(read_manifest(setting.subject)["compressor"], "which 'vtc profile' does not time")
    run = load_run(setting.subject, dtype=kind, device=device)
    model: Any = run.model
    compressor = model.compressor
    tokens = setting.visual_tokens or (compressor.visual_tokens,)
    if not compressor.elastic and tokens != (compressor.visual_tokens,):
        raise InputError(
            f"run {setting.subject} makes {compressor.visual_tokens} visual tokens and no other V; "
            "leave --visual-tokens away"
        )
    llm = llm_from_config(model.config.text_config.to_dict(), f"run {setting.subject}")
    encoder = encoder_from_config(model.config.vision_config.to_dict(), f"run {setting.subject}")
    names = {
        "subject": run.manifest["llm"]["name"],
        "encoder": run.manifest["encoder"]["name"],
        "compressor": model.config.compressor,
    }
    return Subject(model, names, llm, encoder, tokens, True)


def _device(wanted: str) -> str:
    import torch

    there = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if there else "cpu"
    if wanted not in ("cpu", "cuda"):
        raise InputError(f"--device {wanted} is unknown; choose auto, cpu or cuda")
    if wanted == "cuda" and not there:
        raise InputError("--device cuda: torch finds no GPU here; take --device cpu")
    return wanted


def _name(device: str, torch: Any) -> str:
    """What the device is called: a GPU by its driver's name."""
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def say_machine(device: str, machine: Any, gpu_row: str | None, force: bool) -> None:
    """The rates that fit the times, as shares of the peaks where these are known."""
    from vtc import console
    from vtc.catalog import gpus

    rates = f"{machine.flops / 1e12:.3g} TFLOP/s and {machine.bandwidth / 1e9:.3g} GB/s"
    try:
        known = gpus.find(device)
    except InputError:
        console.say(f"The roofline that fits these times: {rates} on {device}.")
        known = None
    else:
        shares = (machine.flops / known.bf16_flops, machine.bandwidth / known.bandwidth_gb_s / 1e9)
        console.say(
            f"The roofline that fits these times: {rates}, of {known.gpu}'s peaks {shares[0]:.2f} "
            f"and {shares[1]:.2f}: give recommend --compute-efficiency {shares[0]:.2f} "
            f"--bandwidth-efficiency {shares[1]:.2f}."
        )
    if gpu_row:
        from vtc.tables import specs, write

        row = {
            "gpu": f"my-{known.gpu if known else device}",
            "name": f"measured {device}",
            "memory_gb": known.memory_gb if known else _memory_gb(),
            "bandwidth_gb_s": machine.bandwidth / 1e9,
            "bf16_tflops": machine.flops / 1e12,
            "compute_efficiency": 1.0,
            "bandwidth_efficiency": 1.0,
            "source": "vtc profile",
        }
        write.write_rows([row], specs.GPUS, gpu_row, fmt="csv", force=force)
        console.say(f"wrote {gpu_row}")


def _memory_gb() -> float:
    """Memory of the machine in GiB."""
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
