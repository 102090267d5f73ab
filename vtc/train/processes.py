"""One training by several processes (`accelerate launch`, torchrun): who does what. No torch."""

import os
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from vtc.errors import InputError, VtcError
from vtc.train.settings import StageSettings

Result = TypeVar("Result")

_FSDP, _DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"


def n_processes() -> int:
    """How many processes train together; the launcher says so in the environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@cache
def is_sharded() -> bool:
    """Whether the processes share one model (FSDP), a part of each weight in each process.

    Otherwise each has the whole model (DDP). The launcher says so in the environment.
    """
    return n_processes() > 1 and _flag(_FSDP)


@cache
def join() -> None:
    """Meet the other processes, and take this one's GPU of those of the machine.

    Raises InputError for ways of sharing a model that vtc does not know.
    """
    import torch
    from accelerate import PartialState

    if _flag(_DEEPSPEED):
        raise InputError(
            "DeepSpeed is not supported; a model that is too large for one GPU is shared out by "
            "'accelerate launch --use_fsdp --fsdp_version 2'"
        )
    if is_sharded():
        _refuse_unknown_fsdp()
    # The model is sharded here (train.sharding), on a CPU as on GPUs. Accelerate, which cannot on
    # a CPU, must not do it again, nor transformers leave the weights unread on all but the first.
    os.environ.pop(_FSDP, None)
    # The others wait while the first writes a checkpoint; a large one takes longer than the ten
    # minutes that torch would wait on GPUs.
    PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=1))


def is_first() -> bool:
    """Whether this process is the one that writes and speaks for all."""
    return int(os.environ.get("RANK", "0")) == 0


def by_first(work: Callable[[], Result]) -> Result:
    """What `work` gives in the first process, which alone does it, to all; they wait for it.

    All processes must call it, after `join`. Raises in all of them the VtcError that it raised in
    the first: else the others would wait until they are killed, or fail in words of their own.
    """
    if n_processes() == 1:
        return work()
    from accelerate.utils import broadcast_object_list

    outcome: list[Any] = [None, None]
    if is_first():
        try:
            outcome[0] = work()
        except VtcError as error:
            outcome[1] = error
    result, failure = broadcast_object_list(outcome)
    if failure is not None:
        raise failure
    return result


def refuse_unshardable(settings: StageSettings) -> None:
    """Raise InputError under FSDP for a training that vtc does not share out; loads nothing."""
    if not is_sharded():
        return
    whole = "or launch with whole copies of the model (--multi_gpu)"
    if settings.load_4bit or settings.method == "qlora":
        raise InputError(
            "FSDP does not share out weights in 4 bits; take --method lora without --load-4bit, "
            + whole
        )
    if settings.objective == "align":
        raise InputError(
            f"--objective align does not train under FSDP; take --objective lm, {whole}"
        )
    if settings.optimizer != "adamw":
        raise InputError(
            f"--optimizer {settings.optimizer} does not train under FSDP; take --optimizer adamw, "
            + whole
        )
    if settings.compile:
        raise InputError(f"--compile does not work under FSDP; leave it out, {whole}")
    if settings.auto_batch:
        raise InputError(
            "--auto-batch cannot foresee the memory of a model under FSDP; give --batch-size and "
            f"--accumulate, {whole}"
        )
    if settings.dtype == "bf16" and settings.stage == "finetune" and settings.method == "full":
        raise InputError(
            "under FSDP all weights that train are of one type, and the compressor's are fp32; "
            "take --dtype auto in place of bf16"
        )


def _refuse_unknown_fsdp() -> None:
    """Raise InputError for ways of FSDP that vtc does not know."""
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise InputError("FSDP of version 1 is not supported; launch with --fsdp_version 2")
    if _flag("FSDP_OFFLOAD_PARAMS"):
        raise InputError(
            "--fsdp_offload_params is not supported; launch with more processes, or train with "
            "--method lora or --gradient-checkpointing"
        )
    if _flag("FSDP_ACTIVATION_CHECKPOINTING"):
        raise InputError(
            "--fsdp_activation_checkpointing is not supported; give vtc --gradient-checkpointing"
        )


def _flag(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")
