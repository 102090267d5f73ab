"""One training from its settings alone: steps, tokens, FLOPs, hours, memory, disk."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vtc.catalog.gpus import Gpu
from vtc.catalog.shapes import EncoderShape, LlmShape
from vtc.cost.data import DataFacts
from vtc.cost.encoder import encoder_flops
from vtc.cost.llm import Trains, training_flops
from vtc.cost.memory import CompressorCost, Memory, Precision, Setup, StepShape, training_memory
from vtc.cost.query import row_text, rows_of_sample, training_query_flops
from vtc.errors import InputError

MFU = 0.35
"""Share of a GPU's peak that the FLOPs truly needed reach, where nobody has measured it."""

_PRECISION: dict[str, Precision] = {"auto": "mixed", "bf16": "bf16", "fp32": "fp32"}
_STAGE_1 = "train-projector"
_CACHE_BYTES = 2


@dataclass(frozen=True)
class Parts:
    """The models of a training: names and shapes, and the compressor's own statement."""

    llm_name: str
    llm: LlmShape
    encoder_name: str
    encoder: EncoderShape
    compressor_name: str
    compressor: CompressorCost
    visual_tokens: int


@dataclass(frozen=True)
class Job:
    """One run of a training command: `settings` are its flags, named as on the command line.

    `beside` are the compressors of the other runs that train in one process with it, step by step
    in turn: they share the backbones and the encoder's pass (stage 1 with several V). `turns` are
    the models at each V of an elastic training, none of another; a step has one of them, each as
    likely as another, or `together` all.
    """

    command: str
    recipe: str
    parts: Parts
    data: DataFacts
    settings: Mapping[str, Any]
    beside: tuple[CompressorCost, ...] = ()
    turns: tuple[Parts, ...] = ()
    together: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "epochs", "max_length"):
            if not self.settings[name] > 0:
                flag = name.replace("_", "-")
                raise InputError(
                    f"{self.recipe or self.command}: --{flag} {self.settings[name]} must be above 0"
                )

    @property
    def method(self) -> str:
        """What trains: the compressor alone, or with it the LLM by full, lora or qlora."""
        return "compressor" if self.command == _STAGE_1 else str(self.settings["method"])

    @property
    def trains(self) -> Trains:
        """What of the LLM trains."""
        kinds: dict[str, Trains] = {"full": "full", "lora": "lora", "qlora": "lora"}
        return kinds.get(self.method, "nothing")

    @property
    def steps(self) -> int:
        """Optimizer steps, counted as transformers' Trainer counts."""
        settings = self.settings
        if settings.get("max_steps"):
            return int(settings["max_steps"])
        batches = math.ceil(self.data.rows / settings["batch_size"])
        return math.ceil(settings["epochs"] * max(1, math.ceil(batches / settings["accumulate"])))

    @property
    def samples(self) -> float:
        """Samples seen in all."""
        if self.settings.get("max_steps"):
            return self.steps * self.global_batch
        return self.settings["epochs"] * self.data.rows

    @property
    def global_batch(self) -> int:
        """Samples an optimizer step."""
        return self.settings["batch_size"] * self.settings["accumulate"]

    @property
    def n_lora(self) -> int:
        """Parameters of LoRA."""
        return self.parts.llm.n_lora(self.settings["lora_r"]) if self.trains == "lora" else 0

    @property
    def at_each_v(self) -> "list[Job]":
        """The trainings at each V alone of an elastic one."""
        return [replace(self, parts=parts, turns=()) for parts in self.turns]

    @property
    def share(self) -> float:
        """The part that it makes of the passes of each of them: all, or as often as it is drawn."""
        return 1.0 if self.together else 1 / len(self.turns)


def side_by_side(jobs: Sequence[Job], n_groups: int = 1) -> list[Job]:
    """The jobs of one process, whose `n_groups` equal groups train one after the other."""
    size = len(jobs) // n_groups
    return [
        replace(
            job,
            beside=tuple(
                other.parts.compressor
                for other in jobs[number - number % size :][:size]
                if other is not job
            ),
        )
        for number, job in enumerate(jobs)
    ]


def row_tokens(job: Job) -> tuple[float, float]:
    """Mean tokens of a row with images, and of one without, cut at the longest allowed."""
    text, limit = job.data.text_tokens, job.settings["max_length"]
    visual = job.data.images_per_row * job.parts.visual_tokens
    shown = row_text(job.data, job.settings) if job.parts.compressor.needs_query else text
    return min(shown + visual, limit), min(text, limit)


def rows_with_images(job: Job) -> float:
    """Rows that a sample with images becomes: several if images are compressed for questions."""
    return rows_of_sample(job.data, job.settings) if job.parts.compressor.needs_query else 1.0


def tokens(job: Job) -> float:
    """Tokens that enter the LLM over the whole training."""
    if job.turns:
        return job.share * sum(tokens(one) for one in job.at_each_v)
    share, (seen, read) = job.data.image_share, row_tokens(job)
    return job.samples * (share * rows_with_images(job) * seen + (1 - share) * read)


def flops(job: Job) -> tuple[float, float]:
    """FLOPs truly needed over the whole training, and those of the frozen encoder among them.

    The encoder passes once over every image of every sample, for all runs side by side together
    (each bears its share), or not at all if the features come from a cache. The compressor runs
    forward and backward (three passes), for each question anew if it reads them, beside the LLM's
    pass over them, and with the prompts that it fuses; `--objective align` has no LLM pass. An
    elastic training costs the mean of those at its V, or their sum where a step trains them all;
    the encoder's pass is the same for all.
    """
    if job.turns:
        each = [flops(one) for one in job.at_each_v]
        encoder = each[0][1]
        return job.share * sum(whole - encoder for whole, _ in each) + encoder, encoder
    share, (seen, read) = job.data.image_share, row_tokens(job)
    rank = job.settings.get("lora_r", 0)
    llm = 0.0
    if job.settings.get("objective", "lm") == "lm":
        n_rows = rows_with_images(job)
        for part, rows, length in ((share, n_rows, seen), (1 - share, 1.0, read)):
            supervised = min(job.data.supervised_tokens / rows, length)
            llm += (
                rows
                * part
                * training_flops(job.parts.llm, length, supervised, job.trains, lora_rank=rank)
            )
    images = job.data.images_per_row * share * job.samples
    compressor = job.parts.compressor
    compressing = 3.0 * images * rows_with_images(job) * compressor.flops
    if job.settings.get("objective", "lm") == "lm":
        visual = job.data.images_per_row * job.parts.visual_tokens
        prompt = max(seen - visual - job.data.supervised_tokens, 0.0)
        compressing += 3.0 * share * job.samples * compressor.fusing(prompt)
    if compressor.needs_query:
        compressing += training_query_flops(
            job.parts.llm, job.data, job.settings, job.samples, job.trains == "nothing"
        )
    # A pass in which patches merge serves none that has them merged otherwise.
    alike = [one for one in job.beside if one.patches_left == compressor.patches_left]
    level = max(level for one in (compressor, *alike) for level in one.levels)
    cached = bool(job.settings.get("features"))
    passes = 0.0 if cached else images / (1 + len(alike))
    encoder = passes * encoder_flops(job.parts.encoder, level, compressor.patches_left)
    return job.samples * llm + compressing + encoder, encoder


def memory(job: Job, rows: int | None = None, gpu: bool = True) -> Memory:
    """Peak memory of the longest batch of `rows` samples, default the job's own.

    It is that of the process, runs side by side included, and of an elastic training at the run's
    own V, the largest. Every row is taken as long as the longest
    of the data: batches are sorted by length, and padded. Of a packed batch only one row is; see
    `packed_text`.
    """
    data, settings, parts = job.data, job.settings, job.parts
    rows = math.ceil(int(rows or settings["batch_size"]) * rows_with_images(job))
    text: float = min(data.longest_text_tokens, settings["max_length"])
    if settings.get("pack"):
        text = packed_text(job, rows)
    visual = math.ceil(data.images_per_row * parts.visual_tokens) if data.image_share else 0
    setup = Setup(
        job.trains,
        _PRECISION[settings["dtype"]] if gpu or settings["dtype"] == "bf16" else "fp32",
        four_bit=job.method == "qlora" or bool(settings.get("load_4bit")),
        lora_rank=settings.get("lora_r", 0),
        lora_dropout=settings.get("lora_dropout", 0.0),
        optimizer=settings.get("optimizer", "adamw"),
        checkpointing=bool(settings.get("gradient_checkpointing")),
        eager=settings.get("attention") == "eager",
        gpu=gpu,
    )
    step = StepShape(
        rows=rows,
        tokens=math.ceil(min(text + visual, settings["max_length"])),
        supervised=round(text * data.supervised_tokens / data.text_tokens),
        images=math.ceil(rows * data.images_per_row) if data.image_share else 0,
        encodes=not settings.get("features"),
    )
    beside = sum(compressor.n_params for compressor in job.beside)
    return training_memory(parts.llm, parts.encoder, parts.compressor, setup, step, beside=beside)


def packed_text(job: Job, rows: int) -> float:
    """Mean text tokens of a row in the longest of all packed batches: its longest, and its others.

    The others are the longest of a bucket of b batches sorted by length: mean * (1 + ln b), if
    lengths thin out exponentially, which is an assumption. Without buckets they are as all rows.
    """
    longest = min(job.data.longest_text_tokens, job.settings["max_length"])
    accumulate, bucket = job.settings["accumulate"], job.settings.get("length_bucket", 8)
    batches = 1 if bucket == 1 else accumulate * math.ceil(bucket / accumulate)
    others = min(job.data.text_tokens * (1 + math.log(batches)), longest)
    return (longest + (rows - 1) * others) / rows


def fitting_batch(job: Job, gpu: Gpu) -> int | None:
    """The largest micro-batch that divides the global batch and fits a GPU; None if none does."""
    whole = job.global_batch
    for rows in range(whole, 0, -1):
        if whole % rows == 0 and memory(job, rows).peak <= gpu.usable_bytes:
            return rows
    return None


def disk(job: Job) -> dict[str, int]:
    """Bytes on disk: the run, its checkpoints while it trains, and a feature cache if it is made.

    A run keeps what trained: compressor and LoRA in fp32, or the whole model in the type it
    trained in. A checkpoint has the optimizer's states as well; while one is written, `--keep`
    of them are there, and never fewer than two. The cache holds every level of every image in
    16 bits.
    """
    parts, encoder = job.parts, job.parts.encoder
    small = 4 * (parts.compressor.n_params + job.n_lora)
    whole = parts.llm.n_params if job.trains == "full" else 0
    element = 2 if job.settings["dtype"] == "bf16" else 4
    held = memory(replace(job, beside=()))
    # Paged states are written too; they are of 8 bits.
    states = held.optimizer or 2 * (parts.compressor.n_params + job.n_lora + whole)
    checkpoint = small + element * whole + states
    cache = job.data.images * len(parts.compressor.levels) * encoder.n_patches
    return {
        "disk_run": small + element * (whole + encoder.n_params * bool(whole)),
        "disk_checkpoints": max(job.settings.get("keep", 2), 2) * checkpoint,
        "disk_features": cache * encoder.hidden_size * _CACHE_BYTES,
    }


def _turns_in_words(job: Job) -> str:
    """What the tokens and FLOPs of an elastic training are."""
    each = [str(parts.visual_tokens) for parts in job.turns]
    short = each if len(each) < 10 else [*each[:3], "...", each[-1]]
    return f"{'sum' if job.together else 'mean'} over {', '.join(short)}"


def estimate(job: Job, gpu: Gpu | None, mfu: float = MFU, *, on_gpu: bool = True) -> dict[str, Any]:
    """A row of the ESTIMATE table; without a GPU its hours, and whether it fits, are empty.

    Memory is that of a training on a GPU, named or not, or else on the CPU.
    """
    needed, of_encoder = flops(job)
    held = memory(job, gpu=on_gpu)
    row: dict[str, Any] = {
        "recipe": job.recipe,
        "command": job.command,
        "llm": job.parts.llm_name,
        "n_params_total": job.parts.llm.n_params,
        "encoder": job.parts.encoder_name,
        "compressor": job.parts.compressor_name,
        "visual_tokens": job.parts.visual_tokens,
        "trained_visual_tokens": _turns_in_words(job) if job.turns else None,
        "method": job.method,
        "samples": round(job.samples),
        "steps": job.steps,
        "batch_size": job.settings["batch_size"],
        "accumulate": job.settings["accumulate"],
        "tokens": round(tokens(job)),
        "flops": needed,
        "flops_encoder": of_encoder,
        "memory_weights": held.weights,
        "memory_gradients": held.gradients,
        "memory_optimizer": held.optimizer,
        "memory_activations": held.activations,
        "memory_overhead": held.overhead,
        "memory_peak": held.peak,
        **disk(job),
    }
    if gpu is not None:
        row |= {
            "gpu": gpu.gpu,
            "mfu": mfu,
            "gpu_hours": needed / (gpu.bf16_flops * mfu) / 3600,
            "fits": held.peak <= gpu.usable_bytes,
            "fitting_batch_size": fitting_batch(job, gpu),
        }
    return row
