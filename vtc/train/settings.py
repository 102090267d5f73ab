"""The settings of a training stage, with LLaVA-1.5's values as defaults.

Source: LLaVA-1.5 (arXiv 2310.03744) `scripts/v1_5/pretrain.sh`, `finetune.sh`, `finetune_lora.sh`:
cosine schedule, warm-up 3 % of the steps, no weight decay, one epoch, 2048 tokens, gradient norm
clipped at 1.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from vtc.compress.choices import Asked
from vtc.data.image_modes import ImageMode
from vtc.data.image_places import QueryPosition
from vtc.data.packing import Turns
from vtc.data.queries import QueryScope
from vtc.data.templates import TemplateName
from vtc.errors import InputError

Objective = Literal["lm", "align"]
Method = Literal["full", "lora", "qlora"]
Dtype = Literal["auto", "fp32", "bf16"]
Attention = Literal["auto", "sdpa", "flash", "flex", "eager"]
Optimizer = Literal["adamw", "adamw-8bit", "paged-adamw-8bit"]


@dataclass(frozen=True)
class LoraSettings:
    """LoRA on the LLM's linear layers (never the encoder or the head): LLaVA's rank and scale.

    `targets` are patterns of layer names (none: all), as `model.adapters.lora_targets` reads them.
    """

    r: int = 128
    alpha: int = 256
    dropout: float = 0.05
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("r", "alpha"):
            if not getattr(self, name) > 0:
                raise InputError(f"--lora-{name} {getattr(self, name)} must be above 0")
        if not 0 <= self.dropout < 1:
            raise InputError(f"--lora-dropout {self.dropout} is a probability, in [0, 1)")


@dataclass(frozen=True)
class AlignSettings:
    """The target of `--objective align`: how the words shown in a cell become one vector."""

    reduction: Literal["sum", "mean", "sqrt"] = "sum"
    scale: float = 1.0


_POSITIVE = (
    *("learning_rate", "compressor_learning_rate", "batch_size", "accumulate", "epochs"),
    *("max_steps", "max_length"),
    *("max_questions", "log_every", "length_bucket", "max_memory"),
)


@dataclass(frozen=True)
class StageSettings:
    """One training stage: what trains, on what, for how long."""

    stage: Literal["projector", "finetune"]
    learning_rate: float
    batch_size: int
    accumulate: int
    template: TemplateName
    weights: str | None = None
    chat_template: str | None = None
    image_mode: ImageMode | None = None
    query_position: QueryPosition | None = None
    query_scope: QueryScope | None = None
    compressor_learning_rate: float | None = None
    train_visual_tokens: Asked | None = None
    repeat_visual_tokens: int | None = None
    objective: Objective = "lm"
    method: Method = "full"
    epochs: float = 1.0
    max_steps: int | None = None
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int = 2048
    turns: Turns = "dialogue"
    max_questions: int | None = None
    seed: int = 0
    data_seed: int | None = None
    dtype: Dtype = "auto"
    load_4bit: bool = False
    log_every: int = 10
    length_bucket: int = 8
    optimizer: Optimizer = "adamw"
    gradient_checkpointing: bool = False
    compile: bool = False
    pack: bool = False
    attention: Attention = "auto"
    auto_batch: bool = False
    max_memory: int | None = None
    lora: LoraSettings = LoraSettings()
    align: AlignSettings = AlignSettings()

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                flag = name.replace("learning_rate", "lr").replace("_", "-")
                raise InputError(f"--{flag} {value} must be above 0")
        if self.max_memory is not None and not self.auto_batch:
            raise InputError("--max-memory needs --auto-batch")
        if self.max_questions is not None and self.turns != "independent":
            raise InputError("--max-questions needs --turns independent")
        if not 0 <= self.warmup < 1:
            raise InputError(f"--warmup {self.warmup} is a share of the steps, in [0, 1)")
        if self.pack:
            self._check_pack()

    def _check_pack(self) -> None:
        """Raise InputError for what samples without padding or mask cannot go with."""
        if self.turns == "independent":
            raise InputError(
                "--turns independent needs a mask, which --pack has none of; leave out one of them"
            )
        if self.objective == "align":
            raise InputError("--pack is for --objective lm; align has no LLM pass")
        if self.attention not in ("auto", "flash"):
            raise InputError(
                f"--attention {self.attention} does not know where a packed sample ends; with "
                "--pack choose auto or flash"
            )
        if self.compile:
            raise InputError(
                "--compile compiles for shapes that stay, and with --pack every batch has another "
                "length; leave out one of them"
            )

    @property
    def order_seed(self) -> int:
        """The seed of what is drawn from the data: order, mixture, questions."""
        return self.seed if self.data_seed is None else self.data_seed

    def with_(self, **changes: Any) -> "StageSettings":
        """These settings with the given ones changed; None changes nothing."""
        return replace(self, **{name: new for name, new in changes.items() if new is not None})

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for footers: one that came later only where it says much.

        Run ids follow from them.
        """
        values = asdict(self)
        if self.repeat_visual_tokens is None:
            del values["repeat_visual_tokens"]
        return values

    def n_steps(self, n_samples: int) -> int:
        """Optimizer steps over `n_samples` samples, counted as transformers' Trainer counts."""
        if self.max_steps is not None:
            return self.max_steps
        batches = math.ceil(n_samples / self.batch_size)
        return math.ceil(self.epochs * max(1, math.ceil(batches / self.accumulate)))


PROJECTOR = StageSettings("projector", 1e-3, batch_size=32, accumulate=8, template="plain")
"""Stage 1 of LLaVA-1.5: the compressor alone, global batch 256."""

FINETUNE = StageSettings("finetune", 2e-5, batch_size=16, accumulate=8, template="chat")
"""Stage 2 of LLaVA-1.5: the LLM and the compressor, global batch 128."""
