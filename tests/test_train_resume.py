"""A training that is killed and resumed ends as if nothing had happened, bit for bit."""

import signal

import pytest
from train_kills import end_when_killed
from train_runs import STAGE_1, STAGE_2, STEPS, left_beside, same_run, stage_1, stage_2
from train_samples import read

from vtc.train.settings import PROJECTOR

EIGHT_BIT = STAGE_1.with_(optimizer="adamw-8bit")
ALIGN = PROJECTOR.with_(**{**STEPS, "accumulate": 2, "max_steps": 4}, objective="align")


@pytest.fixture(scope="module")
def samples(tiny_world, tmp_path_factory):
    return read(tmp_path_factory.mktemp("samples"), tiny_world)


@pytest.fixture(scope="module")
def first_stage(tiny_world, samples, tmp_path_factory):
    """A finished run of stage 1."""
    return stage_1(tiny_world, samples, tmp_path_factory.mktemp("first"))[0]


@pytest.mark.parametrize(
    "kills",
    [(("batch", 4), ("weights", 1)), (("manifest", 2), ("rename", 1))],
    ids=["in a step, then in a save", "in a save, then at the end of one"],
)
@pytest.mark.parametrize("method", STAGE_2)
def test_stage_2_killed_twice_ends_the_same(first_stage, samples, tmp_path, method, kills):
    (whole,) = stage_2(first_stage, samples, tmp_path / "whole", method, every=0)
    cut, heard = tmp_path / "cut", []

    def work(resume):
        return lambda: stage_2(
            first_stage, samples, cut, method, every=2, resume=resume, say=heard.append
        )

    for (moment, count), resume in zip(kills, (False, True), strict=True):
        assert end_when_killed(work(resume), moment, count) == -signal.SIGKILL
    assert left_beside(cut) == [f"{whole.name}.training"]
    (again,) = work(True)()
    assert any(line.startswith("going on behind step") for line in heard)
    same_run(whole, again)
    assert left_beside(cut) == []


@pytest.mark.parametrize("settings", [STAGE_1, EIGHT_BIT, ALIGN], ids=["lm", "8-bit", "align"])
def test_stage_1_of_two_v_killed_twice_ends_the_same(tiny_world, samples, tmp_path, settings):
    both = (1, 4)
    whole = stage_1(tiny_world, samples, tmp_path / "whole", settings, both, every=0)
    cut, heard = tmp_path / "cut", []

    def work(resume):
        return lambda: stage_1(
            tiny_world, samples, cut, settings, both, every=2, resume=resume, say=heard.append
        )

    assert end_when_killed(work(False), "batch", 5) == -signal.SIGKILL
    # The second kill falls into the second V.
    batches = settings.max_steps * settings.accumulate
    assert end_when_killed(work(True), "batch", batches + 2) == -signal.SIGKILL
    again = work(True)()
    for left, right in zip(whole, again, strict=True):
        same_run(left, right)
    assert f"{cut}/tokenpacker-v1 is finished" in heard
    assert left_beside(cut) == []


def test_killed_at_every_step_in_turn_ends_the_same(tiny_world, samples, tmp_path):
    # 12 batches an epoch are 3 steps: the fifth is in the second epoch.
    settings = STAGE_1.with_(accumulate=4, max_steps=5, batch_size=2)
    (whole,) = stage_1(tiny_world, samples, tmp_path / "whole", settings)
    cut = tmp_path / "cut"

    def work(resume):
        return lambda: stage_1(tiny_world, samples, cut, settings, every=1, keep=1, resume=resume)

    assert end_when_killed(work(False), "batch", 5) == -signal.SIGKILL
    for step in range(1, 5):
        (checkpoint,) = (cut / f"{whole.name}.training").glob("step-*")
        assert checkpoint.name == f"step-{step:08d}"
        assert end_when_killed(work(True), "batch", 5) == -signal.SIGKILL or step == 4
    (again,) = work(True)()
    same_run(whole, again)
