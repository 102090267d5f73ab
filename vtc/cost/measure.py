"""Times and memory of a real model on this machine, part by part, and the roofline they fit."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vtc.catalog.shapes import EncoderShape, LlmShape, sides
from vtc.cost.inference import Compressing, Service, Work, work
from vtc.cost.roofline import Machine

PARTS = ("encoder", "compressor", "prefill", "decode")


@dataclass(frozen=True)
class Timing:
    """Median seconds of each part for a batch, decoding a token; the most bytes held.

    `spread` is the largest deviation of a measurement from its median, over the median; one
    measurement has none.
    """

    seconds: Mapping[str, float]
    peak_bytes: int
    spread: float | None


@torch.inference_mode()
def measure(model: Any, service: Service, visual_tokens: int, repeats: int) -> Timing:
    """Time a model of `vtc.model` at one setting: random pixels and tokens, greedy decoding.

    A cached prefix is read once before, in every row of the batch. Each part runs once to warm up.
    """
    device, s, config = next(model.parameters()).device, service, model.config
    _forget_peak(device)
    size, dtype = sides(config.vision_config.image_size), next(model.parameters()).dtype
    pixels = torch.rand(s.batch * s.images, 3, *size, dtype=dtype, device=device)
    taken: dict[str, list[float]] = {name: [] for name in PARTS}
    ids = torch.randint(0, config.text_config.vocab_size, (s.batch, int(s.text_tokens) or 1))
    ids = ids.to(device)[:, : int(s.text_tokens)]
    for turn in range(repeats + 1):
        found = _one_turn(model, pixels, ids, service, visual_tokens)
        for name, value in found.items() if turn else ():
            taken[name].append(value)
    medians = {name: statistics.median(values) for name, values in taken.items() if values}
    deviations = (
        abs(value - middle) / middle for name, middle in medians.items() for value in taken[name]
    )
    spread = max(deviations) if repeats > 1 else None
    return Timing(medians, _peak(device), spread)


def _one_turn(
    model: Any, pixels: torch.Tensor, ids: torch.Tensor, s: Service, visual_tokens: int
) -> dict[str, float]:
    """Seconds of each part, once."""
    parts, device = model.model, pixels.device
    cache, found = _prefix(parts.language_model, s, device), {}
    asked: dict[str, Any] = {"query_ids": ids} if parts.compressor.needs_query else {}
    if parts.compressor.elastic:
        asked["visual_tokens"] = visual_tokens
    levels, found["encoder"] = _timed(device, lambda: parts.encode(pixels))
    tokens, found["compressor"] = _timed(device, lambda: parts.compress(levels, **asked))
    # As often as the LLM is fed them.
    fed = torch.stack(parts.as_output(tokens).pooler_output)
    start = _embedded(parts, fed, ids, s)
    (cache, following), found["prefill"] = _timed(device, lambda: _pass(model, start, cache))
    steps = int(s.generated_tokens) - 1
    if steps > 0:
        _, seconds = _timed(device, lambda: _go_on(model, following, cache, steps))
        found["decode"] = seconds / steps
    return found


def _prefix(llm: Any, s: Service, device: torch.device) -> Any:
    if not s.cached_tokens:
        return None
    ids = torch.zeros(s.batch, int(s.cached_tokens), dtype=torch.long, device=device)
    return llm(input_ids=ids, use_cache=True).past_key_values


def _embedded(parts: Any, tokens: torch.Tensor, ids: torch.Tensor, s: Service) -> torch.Tensor:
    """[B, images * V + Q, d]: the visual tokens, the text behind them."""
    seen = tokens.reshape(s.batch, -1, tokens.shape[-1])
    return torch.cat([seen, parts.language_model.get_input_embeddings()(ids).to(seen.dtype)], dim=1)


def _pass(model: Any, embeds: torch.Tensor, cache: Any) -> tuple[Any, torch.Tensor]:
    """One pass of the LLM, the head at the last position; the cache, and the likeliest token."""
    out = model.model.language_model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
    logits = model.lm_head(out.last_hidden_state[:, -1:])
    return out.past_key_values, logits.argmax(-1)


def _go_on(model: Any, ids: torch.Tensor, cache: Any, steps: int) -> None:
    embed = model.model.language_model.get_input_embeddings()
    for _ in range(steps):
        cache, ids = _pass(model, embed(ids), cache)


def _timed(device: torch.device, act: Callable[[], Any]) -> tuple[Any, float]:
    _wait(device)
    start = time.perf_counter()
    result = act()
    _wait(device)
    return result, time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        # Linux keeps the peak of the resident memory until it is told to forget it.
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return


def _peak(device: torch.device) -> int:
    """The most bytes: of torch on the GPU, of the whole process without one (0: not known)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@dataclass(frozen=True)
class Point:
    """A part that was timed: its work, how many inferences at once, and its seconds."""

    work: Work
    batch: int
    seconds: float


def points(
    llm: LlmShape,
    encoder: EncoderShape,
    compressor: Compressing,
    visual_tokens: int,
    service: Service,
    timing: Timing,
    element: int,
) -> list[Point]:
    """The timed parts of one setting with their work; `element` are the bytes of a weight."""
    parts = work(llm, encoder, compressor, float(visual_tokens), service)
    steps = max(service.generated_tokens - 1, 1)
    found = []
    for name, seconds in timing.seconds.items():
        part, times = parts[name], steps if name == "decode" else 1
        if part.flops:
            scaled = Work(float(part.flops) / times, float(part.bytes) / times * element / 2)
            found.append(Point(scaled, service.batch, seconds))
    return found


def calibrate(timed: Sequence[Point]) -> Machine:
    """The machine whose roofline comes nearest to the times, by the squares of their logarithms.

    Both rates are searched among those that single points reach. A rate that binds no point is the
    least that contradicts none, a lower bound.
    """
    computing = sorted({p.batch * p.work.flops / p.seconds for p in timed})
    moving = sorted({p.work.bytes / p.seconds for p in timed})

    def misfit(machine: Machine) -> float:
        return sum(
            math.log(
                max(p.batch * p.work.flops / machine.flops, p.work.bytes / machine.bandwidth)
                / p.seconds
            )
            ** 2
            for p in timed
        )

    # Of equal fits the smaller rates come first.
    return min((Machine(f, b) for f in computing for b in moving), key=misfit)
