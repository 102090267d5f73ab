"""One training by several processes (`accelerate launch`, torchrun): who does what. No torch."""

import os
from functools import cache

from vtc.errors import InputError


def n_processes() -> int:
    """How many processes train together; the launcher says so in the environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@cache
def join() -> None:
    """Meet the other processes, and take this one's GPU of those of the machine.

    Raises InputError for ways of sharing a model that vtc does not know.
    """
    import torch
    from accelerate import PartialState

    for name in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in ("1", "true"):
            raise InputError(
                f"{name} is not supported; launch with whole copies of the model (--multi_gpu, or "
                "torchrun)"
            )
    PartialState(cpu=not torch.cuda.is_available())


def is_first() -> bool:
    """Whether this process is the one that writes and speaks for all."""
    return int(os.environ.get("RANK", "0")) == 0
