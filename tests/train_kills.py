"""Trainings in a process of their own that is killed (SIGKILL) at a moment chosen beforehand."""

import os
import signal
import traceback
from unittest.mock import patch

from vtc.train import checkpoints, snapshot
from vtc.train.trainer import VtcTrainer

# A batch; of a checkpoint its weights, its manifest, putting a file on disk (or any other file of
# ours), its rename.
MOMENTS = {
    "batch": (VtcTrainer, "training_step"),
    "weights": (snapshot, "save_file"),
    "manifest": (checkpoints, "_seal"),
    "sync": (os, "fsync"),
    "rename": (os, "replace"),
}


def killed_at(moment: str, count: int):
    """In this context the process dies at the `count`-th such moment, before it happens."""
    owner, name = MOMENTS[moment]
    original, left = getattr(owner, name), [count]

    def counting(*args, **kwargs):
        left[0] -= moment != "rename" or "step-" in str(args[1])
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    return patch.object(owner, name, counting)


def end_of_child(work) -> int:
    """Run `work` in a fork of this process: 0 if it returned, 1 if it raised, -9 if killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def end_when_killed(work, moment: str, count: int) -> int:
    """The same, of a child that is killed at a moment."""

    def doomed():
        with killed_at(moment, count):
            work()

    return end_of_child(doomed)
