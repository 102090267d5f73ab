"""What the runs of a plan take: GPU-hours by N alone, or by a recipe's exact FLOPs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

Flags = Mapping[str, Any]
_HOUR = 3600.0


class Takes(NamedTuple):
    """FLOPs and GPU-hours of a run; `fits`: of a recipe, one row at a time fits the GPU."""

    flops: float
    hours: float
    fits: bool = True


class Hours:
    """GPU-hours of a run on one GPU: by N alone, or by a recipe's exact FLOPs."""

    def __init__(self, flags: Flags) -> None:
        from vtc.catalog import gpus

        self._gpu, self._mfu = gpus.find(flags["gpu"]), flags["mfu"]
        self._encoder = flags["encoder"]
        self._stages = _stages(flags["recipe"]) if flags["recipe"] else None
        self._study = _study(flags)
        self._scale, self._calibrated = 1.0, flags["calibrate"]

    def calibrate(self, points: Any) -> None:
        """Scale all hours so that the run of --calibrate takes what was measured."""
        from vtc.errors import InputError
        from vtc.law.design_llms import sized
        from vtc.tables.quantity import parse_quantity

        if self._calibrated is None:
            return
        text = self._calibrated
        run, _, measured = text.rpartition("=")
        llm, _, tokens = run.rpartition(":")
        try:
            hours, v = parse_quantity(measured), int(tokens)
        except ValueError:
            hours, v = 0.0, 0
        if not (llm and hours > 0 and v > 0):
            raise InputError(
                f"--calibrate {text}: write LLM:V=HOURS of a run that you timed, as in 7b:576=108"
            )
        found, self._scale = sized(llm, points, "--calibrate"), 1.0
        self._scale = hours / self.of(found, v, None).hours

    def of(self, llm: Any, visual_tokens: int, compressor: str | None) -> "Takes":
        """What the training of an LLM at V takes."""
        fits = True
        if self._stages is None:
            flops = self._study.flops(llm.nominal, visual_tokens)
        else:
            from vtc.cost import job as costs

            jobs = _jobs(self._stages, llm, visual_tokens, compressor)
            flops = sum(costs.flops(job)[0] for job in jobs)
            # With a row at a time; a larger micro-batch is the recipe's own matter.
            fits = all(costs.memory(job, 1).peak <= self._gpu.usable_bytes for job in jobs)
        hours = self._scale * flops / (self._gpu.bf16_flops * self._mfu) / _HOUR
        return Takes(flops, hours, fits)

    @property
    def gpu(self) -> str:
        """The GPU's name."""
        return self._gpu.gpu

    @property
    def words(self) -> str:
        """How they are counted."""
        if self._stages is None:
            (s1, s2), (t1, t2) = self._study.samples, self._study.text
            encoder = f" + {self._encoder} once a sample" if self._study.image_flops else ""
            what = f"4 N {s1:g} (V + {t1:g}) + 6 N {s2:g} (V + {t2:g}){encoder}"
        else:
            what = f"exact FLOPs of {self._stages[0].recipe}"
        text = f"Hours: {what}, at {self._mfu:.0%} of a {self._gpu.gpu}'s bf16 peak"
        if self._calibrated:
            text += f", times {self._scale:.3g} by --calibrate {self._calibrated}"
        return f"{text}."


def _study(flags: Flags) -> Any:
    from vtc.catalog import encoders
    from vtc.commands.parts import shape_of
    from vtc.cost.encoder import encoder_flops
    from vtc.cost.study import LLAVA_SAMPLES, LLAVA_TEXT, Study
    from vtc.errors import InputError

    pairs = {}
    for flag, name, default in (
        ("--samples", "samples", LLAVA_SAMPLES),
        ("--sample-text", "sample_text", LLAVA_TEXT),
    ):
        if flags[name] and flags["recipe"]:
            raise InputError(f"{flag} and --recipe exclude each other; the recipe states its data")
        pairs[name] = flags[name] or default
    image_flops = 0.0
    if flags["encoder"] != "none" and not flags["recipe"]:
        shape = shape_of(encoders.shape, flags["encoder"])
        image_flops = float(encoder_flops(shape, shape.n_layers - 1))
    return Study(pairs["samples"], pairs["sample_text"], image_flops)


def _stages(recipe: str) -> list[Any]:
    """The stages of a recipe, for each of its LLMs: LLM, compressor and V are the candidate's."""
    from vtc.cost.recipe import read_recipes
    from vtc.errors import InputError

    found = read_recipes([recipe])
    if any(stage.turns is not None for stage in found):
        raise InputError(
            f"--recipe {recipe} trains several V at once; plan needs one that trains a V a run"
        )
    return found


def _of_llm(stages: Sequence[Any], source: str) -> list[Any]:
    """A stage of each command: the recipe's for that LLM if it has one, else its first."""
    from vtc.catalog import llms

    known = llms.find(source)
    commands = dict.fromkeys(stage.command for stage in stages)
    return [
        next(
            (one for one in own if known is not None and llms.find(one.llm) is known),
            own[0],
        )
        for own in ([stage for stage in stages if stage.command == name] for name in commands)
    ]


def _jobs(stages: Sequence[Any], llm: Any, visual_tokens: int, compressor: str | None) -> list[Any]:
    """The trainings of a recipe, with another LLM, compressor and V in them."""
    from vtc.commands.estimate import jobs_of
    from vtc.errors import InputError

    if llm.source is None:
        raise InputError(
            f"--recipe reckons with the LLM's shape, and {llm.name} is a size alone: name an LLM "
            "of the catalog or a folder, or leave out --recipe"
        )
    jobs = []
    for stage in _of_llm(stages, llm.source):
        own = {"compressors": (compressor or stage.compressors[0],)}
        own |= {"visual_tokens": (visual_tokens,)}
        jobs += jobs_of(replace(stage, llm=llm.source, n_seeds=1, **own))
    return jobs
