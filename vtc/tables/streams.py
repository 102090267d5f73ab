"""The standard streams as bytes: one that is closed or full is named."""

import sys
from typing import BinaryIO

from vtc.errors import InputError


def stdin() -> BinaryIO:
    """Stdin as bytes; raises InputError if it is closed (`<&-`)."""
    if sys.stdin is None:
        raise InputError("stdin is closed; name a file in place of -, or pipe a table into it")
    return sys.stdin.buffer


def stdout() -> BinaryIO:
    """Stdout as bytes; raises InputError if it is closed (`>&-`)."""
    if sys.stdout is None:
        raise InputError("stdout is closed; name a file with -o, or send it somewhere")
    return sys.stdout.buffer
