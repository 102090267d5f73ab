"""Twenty kills at random moments of each kind of training (`make soak`; not part of the tests).

A training that lives to its end between kills is compared with the undisturbed one, and another
begun; the last one is let live.
"""

import os
import random
import shutil
import signal
import threading
import time

import pytest
from tqdm import tqdm
from train_runs import STAGE_2, left_beside, same_run, stage_1, stage_2
from train_samples import read

KILLS = 20

# tqdm's own lock is shared with forks: one that is killed while it draws a bar would keep it.
tqdm.set_lock(threading.RLock())


@pytest.fixture(scope="module")
def samples(tiny_world, tmp_path_factory):
    return read(tmp_path_factory.mktemp("samples"), tiny_world)


@pytest.fixture(scope="module")
def first_stage(tiny_world, samples, tmp_path_factory):
    return stage_1(tiny_world, samples, tmp_path_factory.mktemp("first"))[0]


def killed_after(seconds, work) -> bool:
    """Run `work` in a fork; whether it had to be killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    end = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert end in (0, -signal.SIGKILL), "the training failed by itself"
    return end != 0


@pytest.mark.parametrize("kind", ["stage 1", *STAGE_2])
def test_twenty_kills(tiny_world, samples, first_stage, tmp_path, kind):
    chance = random.Random(kind)

    def train(out, **how):
        if kind == "stage 1":
            return stage_1(tiny_world, samples, out, visual_tokens=(1, 4), **how)
        return stage_2(first_stage, samples, out, kind, **how)

    start = time.perf_counter()
    whole = train(tmp_path / "whole", every=1)
    length = time.perf_counter() - start
    out, kills = tmp_path / "cut", 0
    while kills < KILLS:
        moment = chance.uniform(0, 1.2 * length)
        if killed_after(moment, lambda: train(out, every=1, keep=1, resume=True)):
            kills += 1
            continue
        compare(whole, out)
        shutil.rmtree(out)
    train(out, every=1, keep=1, resume=True)
    compare(whole, out)


def compare(whole, out):
    for run in whole:
        same_run(run, out / run.name)
    assert left_beside(out) == []
