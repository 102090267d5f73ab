"""Who holds a folder's lock: written into the lock file, so that the next one can be told."""

import fcntl
import json
import os
import socket
import sys
from datetime import datetime
from pathlib import Path


class Held(Exception):
    """Another process has the lock; the message says which, and since when."""


def take(path: Path) -> int:
    """Lock a file, made where it is not; the descriptor holds it, and the kernel frees it.

    Raises Held if another process does, and FileNotFoundError if the folder is gone.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise Held(holder) from None
    return descriptor


def sign(descriptor: int) -> None:
    """Write into a lock that is held who holds it: process, host, time, command."""
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().isoformat(sep=" ", timespec="seconds"),
        "command": ["vtc", *sys.argv[1:]],
    }
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(about).encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        about = json.loads(os.pread(descriptor, 1 << 16, 0))
        return f"process {about['pid']} on {about['host']} since {about['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
