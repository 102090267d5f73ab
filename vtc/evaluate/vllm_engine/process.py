"""A process of vLLM: started under its own Python, asked in JSON lines, ended with the asking."""

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from vtc.errors import InputError, VtcError
from vtc.evaluate.vllm_engine import worker
from vtc.evaluate.vllm_engine.check import Vllm

_PATIENCE = 20
"""Seconds that a process has to end by itself."""


class Process:
    """vLLM in a process of its own on one device; what it prints goes to a log.

    Raises InputError if that vLLM runs on another kind of device.
    """

    def __init__(self, vllm: Vllm, device: str) -> None:
        self.vllm = vllm
        self._failed = False
        descriptor, log = tempfile.mkstemp(prefix="vtc-vllm-", suffix=".log")
        self.log = Path(log)
        with open(descriptor, "wb") as errors:
            self._process = subprocess.Popen(
                [vllm.python, "-P", str(Path(worker.__file__).resolve())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=_environment(device),
                # Ctrl-C reaches vtc alone, which ends it.
                start_new_session=True,
            )
        try:
            kind = self._answer()["device"]
            wanted = device.partition(":")[0]
            if kind != wanted:
                raise InputError(
                    f"--engine vllm: the vLLM of {vllm.python} "
                    + (f"runs on {kind}" if kind else "finds no device that it runs on")
                    + f", and vtc on {wanted}; "
                    + ("give --device cpu" if kind == "cpu" else "leave out --engine")
                )
        except BaseException:
            self.end(at_once=True)
            raise

    def ask(self, **what: Any) -> dict[str, Any]:
        """Its answer to a line; raises VtcError with its words if it fails."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure(None) from None
        return self._answer()

    def end(self, at_once: bool = False) -> None:
        """End it, and wait until it has; its log stays only where vLLM failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        steps = [self._process.terminate, self._process.kill]
        # One that failed ends by itself, when it has said why.
        for step in steps if at_once and not self._failed else [lambda: None, *steps]:
            step()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
                break
        self._process.stdout.close()
        if not self._failed:
            self.log.unlink(missing_ok=True)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = json.loads(line) if line else {"error": None}
        if "error" in found:
            raise self._failure(found["error"])
        return found

    def _failure(self, words: str | None) -> VtcError:
        self._failed = True
        reason = words or f"it ended by itself (exit code {self._process.wait(_PATIENCE)})"
        return VtcError(f"vLLM {self.vllm.version} failed: {reason}; what it said is in {self.log}")


def _environment(device: str) -> dict[str, str]:
    """The environment in which vLLM's first GPU is the one that vtc calls `device`."""
    environment = dict(os.environ)
    number = device.partition(":")[2]
    if number:
        seen = environment.get("CUDA_VISIBLE_DEVICES")
        environment["CUDA_VISIBLE_DEVICES"] = seen.split(",")[int(number)] if seen else number
    return environment
