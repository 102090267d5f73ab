"""The footer of every artifact: what made it, from what, with which settings and versions."""

import datetime
import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vtc import __version__


def file_sha(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def footer(
    *,
    settings: Mapping[str, Any] | None = None,
    inputs: Iterable[str | Path] = (),
    seed: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """What made an artifact: command line, settings, seed, inputs with hashes, versions, time."""
    return {
        "vtc_version": __version__,
        "command": ["vtc", *sys.argv[1:]],
        "settings": dict(settings or {}),
        "seed": seed,
        "inputs": [
            {"path": str(path), "sha256": file_sha(path)} for path in inputs if Path(path).is_file()
        ],
        "git_commit": _git_commit(),
        "versions": _versions(),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **more,
    }


def _versions() -> dict[str, str]:
    """Versions of Python and of the libraries that this process has loaded."""
    names = ("torch", "transformers", "peft", "bitsandbytes", "pyarrow", "numpy", "scipy")
    loaded = {name: sys.modules[name] for name in names if name in sys.modules}
    found = {name: getattr(module, "__version__", "?") for name, module in loaded.items()}
    return {"python": platform.python_version(), **found}


def _git_commit() -> str | None:
    """The commit of the working folder's checkout, if it is one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
