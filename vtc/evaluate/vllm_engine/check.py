"""Which vLLM is there, told without loading it; refuses what it cannot do. Light: no torch."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vtc.compress.choices import KNOWN
from vtc.errors import InputError

OLDEST = (0, 32)
"""Of the versions that vtc has been run with, the first."""

_VERSION = r"""
import importlib.util, pathlib, re
found = importlib.util.find_spec("vllm")
text = pathlib.Path(found.origin).with_name("_version.py").read_text() if found else ""
print(*re.findall(r"^__version__ *=.*?['\"]([^'\"]+)", text, re.M))
"""


class Vllm(NamedTuple):
    """An installed vLLM: the Python that has it, and its version."""

    python: str
    version: str


def find_vllm(python: str | None) -> Vllm:
    """The vLLM of a Python, by default of the one that runs.

    Raises InputError, with the way to install it, if there is none or only an old one.
    """
    path = python or sys.executable
    try:
        # -P: a folder called vllm, where vtc was called, is not it.
        done = subprocess.run(
            [path, "-P", "-c", _VERSION], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "it does not answer"
        raise InputError(f"--vllm-python {path}: {reason}; name the Python of vLLM") from None
    version = done.stdout.strip()
    if done.returncode or not version:
        raise InputError(
            f"--engine vllm: {path} has no vLLM, which needs an environment of its own: "
            "'python -m venv vllm-env; vllm-env/bin/pip install vllm', then "
            "--vllm-python vllm-env/bin/python"
        )
    found = Vllm(path, version)
    check_age(found)
    return found


def check_age(vllm: Vllm) -> None:
    """Raise InputError for a version before `OLDEST`."""
    numbers = [int(part) for part in vllm.version.split(".")[:2] if part.isdigit()]
    if tuple(numbers) < OLDEST:
        raise InputError(
            f"--engine vllm: {vllm.python} has vLLM {vllm.version}; vtc needs "
            f"{OLDEST[0]}.{OLDEST[1]} or later"
        )


def check_wishes(answer_by: str, four_bit: bool) -> None:
    """Raise InputError for a way of answering that only vtc's own engine has."""
    if answer_by != "generation":
        raise InputError(
            f"--engine vllm writes its answers; --answer-by {answer_by} works without --engine"
        )
    if four_bit:
        raise InputError(
            "--engine vllm has the LLM's floating weights alone; --load-4bit works without --engine"
        )


def refuse_pruning(manifest: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError for a run whose LLM drops visual tokens between its layers."""
    known = KNOWN.get(manifest["compressor"])
    if known is not None and known.schedule is not None:
        raise InputError(
            f"run {folder}: vLLM's layers cannot drop visual tokens, as {manifest['compressor']} "
            "does; leave --engine vllm out"
        )


def refuse_fusing(manifest: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError for a run that fuses text with images before its LLM."""
    known = KNOWN.get(manifest["compressor"])
    if known is not None and known.fuses:
        raise InputError(
            f"run {folder}: {manifest['compressor']} rewrites the text's embeddings, which vLLM "
            "makes itself; leave --engine vllm out"
        )


def refuse_four_bits(manifest: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError for a QLoRA run, which is evaluated in the 4 bits that it was trained in."""
    if manifest.get("quantisation") and manifest["weights"] == "adapter":
        raise InputError(
            f"run {folder} answers in 4 bits; make it whole with 'vtc export --merge' for "
            "--engine vllm"
        )
