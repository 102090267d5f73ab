"""A command never writes over what it reads."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from vtc.errors import InputError


def keeping_inputs(function: Callable) -> Callable:
    """The command, after a look whether `-o` names a file that another of its values names.

    The command raises InputError if so.
    """

    @wraps(function)
    def command(*arguments: Any, out: str, **values: Any) -> Any:
        # A device, as of /dev/stdin and /dev/stdout, is no file that could be lost.
        if out != "-" and Path(out).is_file():
            for value in values.values():
                for one in value if isinstance(value, tuple) else (value,):
                    if isinstance(one, str) and _is_same_file(one, out):
                        raise InputError(
                            f"-o {out} is a file that the command reads; give the output another "
                            "name"
                        )
        return function(*arguments, out=out, **values)

    return command


def _is_same_file(name: str, file: str) -> bool:
    try:
        return Path(name).samefile(file)
    except (OSError, ValueError):
        return False  # A value that names no file.
