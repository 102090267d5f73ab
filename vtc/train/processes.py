"""One training by several processes (`accelerate launch`, torchrun): who does what. No torch."""

import os


def n_processes() -> int:
    """How many processes train together; the launcher says so in the environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes and speaks for all."""
    return int(os.environ.get("RANK", "0")) == 0
