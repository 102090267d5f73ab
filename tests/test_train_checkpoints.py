"""What checkpoints hold, how they are refused, and how a training stops before its end."""

import json
import math
import os
import shutil
import signal
import subprocess
from contextlib import ExitStack
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from train_kills import end_of_child
from train_runs import STAGE_1, left_beside, same_run, stage_1, stage_2
from train_samples import build, collator, read

from vtc.errors import InputError, Interrupted, VtcError
from vtc.train.checkpoints import Checkpoints, Saving, difference
from vtc.train.folders import leave, locked, training_folder
from vtc.train.stages import freeze_all_but_compressor
from vtc.train.trainer import fit_model


@pytest.fixture(scope="module")
def samples(tiny_world, tmp_path_factory):
    return read(tmp_path_factory.mktemp("samples"), tiny_world)


class AtStep:
    """An `advance` that does something after a step of the training."""

    def __init__(self, step, what):
        self.left, self.what = step, what

    def __call__(self, n, words=""):
        if n:
            self.left -= n
            if self.left == 0:
                self.what()


def send(number):
    return lambda: os.kill(os.getpid(), number)


def run_to_step_6(world, samples, out, number=signal.SIGTERM, **how):
    """A training stopped by a signal in its sixth step; the failure."""
    with pytest.raises(Interrupted) as caught:
        stage_1(world, samples, out, advance=AtStep(5, send(number)), **how)
    return caught.value


@pytest.fixture
def stopped(tiny_world, samples, tmp_path):
    """The run folder of a training that SIGTERM stopped, with checkpoints of steps 4 and 6."""
    run_to_step_6(tiny_world, samples, tmp_path / "out", every=2)
    return tmp_path / "out" / "tokenpacker-v4"


def steps(run):
    return sorted(path.name for path in training_folder(run).glob("step-*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_names_the_way_on(tiny_world, samples, tmp_path, number, code):
    failure = run_to_step_6(tiny_world, samples, tmp_path / "out", number, every=0)
    assert failure.exit_code == code
    assert f"stopped by {number.name} after step 6 of 9, which is saved in" in str(failure)
    assert "--resume goes on from there" in str(failure)
    assert signal.getsignal(number) is not None
    (whole,) = stage_1(tiny_world, samples, tmp_path / "whole")
    (again,) = stage_1(tiny_world, samples, tmp_path / "out", resume=True)
    same_run(whole, again)


def test_a_checkpoint_holds_what_trains_and_no_more(stopped):
    assert steps(stopped) == ["step-00000004", "step-00000006"]
    folder = training_folder(stopped) / "step-00000006"
    names = load_file(folder / "weights.safetensors").keys()
    assert all("multi_modal_projector" in name for name in names)
    for file in folder.glob("*.pt"):
        torch.load(file, weights_only=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["step"] == 6
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {"manifest.json"}


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-7])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "harm", "fault"),
    [
        ("optimizer.pt", os.remove, "optimizer.pt is missing"),
        ("weights.safetensors", cut_short, "weights.safetensors has"),
        ("chance.pt", flip, "chance.pt is not what was written"),
        ("manifest.json", cut_short, "no valid manifest.json"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(stopped, name, harm, fault):
    heard, folder = [], training_folder(stopped)
    identity = json.loads((folder / "step-00000004" / "manifest.json").read_text())["identity"]
    harm(folder / "step-00000006" / name)
    checkpoints = Checkpoints(folder, Saving(resume=True), identity, heard.append)
    assert checkpoints.newest() == folder / "step-00000004"
    assert f"step-00000006 is damaged ({fault}" in heard[0]
    harm(folder / "step-00000004" / name)
    with pytest.raises(InputError, match="is whole; start again with --force"):
        checkpoints.newest()


def test_resuming_with_other_settings_names_the_difference(tiny_world, samples, stopped):
    for change, words in (
        ({"learning_rate": 0.5}, "settings.learning_rate = 0.01, not 0.5"),
        ({"seed": 1}, "settings.seed = 0, not 1"),
    ):
        with pytest.raises(InputError, match=f"{words}; resume with the settings it was begun"):
            stage_1(tiny_world, samples, stopped.parent, STAGE_1.with_(**change), resume=True)
    assert steps(stopped) == ["step-00000004", "step-00000006"]


def test_a_finished_run_of_other_settings_is_not_passed_over(tiny_world, samples, tmp_path):
    stage_1(tiny_world, samples, tmp_path / "out")
    with pytest.raises(InputError, match=r"is finished, with settings.max_steps = 9, not 5"):
        stage_1(tiny_world, samples, tmp_path / "out", STAGE_1.with_(max_steps=5), resume=True)


def test_a_new_start_throws_no_checkpoint_away_unasked(tiny_world, samples, stopped):
    with pytest.raises(InputError, match="go on with --resume, or start again with --force"):
        stage_1(tiny_world, samples, stopped.parent)
    (run,) = stage_1(tiny_world, samples, stopped.parent, force=True)
    assert (run / "manifest.json").is_file()
    assert left_beside(stopped.parent) == []


def test_resuming_what_never_began_begins(tiny_world, samples, tmp_path):
    (run,) = stage_1(tiny_world, samples, tmp_path / "out", resume=True)
    assert (run / "manifest.json").is_file()


def test_what_a_killed_process_left_is_swept(tiny_world, samples, tmp_path):
    out = tmp_path / "out"
    # Killed after its trial of the save, which would be in the way of the next.
    trial = training_folder(out / "tokenpacker-v4") / "trial"
    trial.mkdir(parents=True)
    (trial / "manifest.json").write_text("{}")
    (run,) = stage_1(tiny_world, samples, out)
    assert left_beside(out) == []
    # Killed between the run and the removal of its checkpoints.
    checkpoint = training_folder(run) / "step-00000009"
    checkpoint.mkdir(parents=True)
    assert stage_1(tiny_world, samples, out, resume=True) == [run]
    assert left_beside(out) == []


def test_difference_names_nested_new_and_lost_settings():
    begun = {"settings": {"lora": {"r": 4}, "old": 1}, "data": ["a"]}
    assert difference(begun, begun) is None
    assert difference(begun, {**begun, "files": ["other/name.json"]}) is None
    assert difference({"encoder": "3f"}, {"encoder": "4a"}) == "another encoder"
    now = {"settings": {"lora": {"r": 8}, "old": 1}, "data": ["a"]}
    assert difference(begun, now) == "settings.lora.r = 4, not 8"
    now = {"settings": {"lora": {"r": 4}}, "data": ["a"]}
    assert difference(begun, now) == "settings.old = 1, not None"


def test_other_data_is_told_by_name_number_or_content():
    begun = {"data": ["3f"], "files": ["old/a.json"], "samples": 12}
    other = {"data": ["4a"], "files": ["new/b.json"], "samples": 6}
    assert difference(begun, other) == "other data (a.json: 12 samples), not b.json: 6 samples"
    changed = {**begun, "data": ["4a"]}
    assert difference(begun, changed) == "another content of a.json: 12 samples than there is now"
    # A checkpoint of a version that kept no names.
    unnamed = {"data": ["3f"], "samples": 12}
    assert difference(unnamed, other).startswith("other data (files of unknown name: 12 samples)")
    assert difference(unnamed, begun) is None


def test_only_one_process_trains_a_run(tiny_world, samples, tmp_path):
    run = tmp_path / "out" / "tokenpacker-v4"
    with locked([run]):
        with pytest.raises(InputError, match=f"is being trained by process {os.getpid()} on "):
            stage_1(tiny_world, samples, tmp_path / "out", visual_tokens=(1, 4))
        assert not training_folder(run.with_name("tokenpacker-v1")).exists()
    assert not (tmp_path / "out").exists()


def test_the_lock_dies_with_its_process_and_its_leavings_go(tmp_path):
    run = tmp_path / "run"
    (tmp_path / ".run.99.partial").mkdir()
    (tmp_path / ".run.98.old").mkdir()
    (tmp_path / ".run.more.99.partial").mkdir()

    def die_locked():
        with locked([run]):
            (training_folder(run) / ".step-00000002.99.partial").mkdir()
            os.kill(os.getpid(), signal.SIGKILL)

    assert end_of_child(die_locked) == -signal.SIGKILL
    with locked([run]):
        assert [path.name for path in training_folder(run).iterdir()] == ["lock"]
    # The folder that was being replaced is back; another run's leavings are not ours to take.
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run.more.99.partial", "run"]


def test_a_run_that_is_whole_is_let_go_while_others_train(tiny_world, samples, tmp_path):
    one, two = (tmp_path / "out" / f"tokenpacker-v{v}" for v in (1, 4))
    seen = []

    def look():
        seen.append([(run.exists(), training_folder(run).exists()) for run in (one, two)])

    steps = AtStep(STAGE_1.max_steps + 1, look)
    stage_1(tiny_world, samples, tmp_path / "out", visual_tokens=(1, 4), advance=steps)
    assert seen == [[(True, False), (False, True)]]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [one.name, two.name]


def test_a_folder_left_and_taken_by_another_is_not_removed(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    with ExitStack() as other:
        with locked([one, two]):
            leave(one)
            assert [training_folder(run).exists() for run in (one, two)] == [False, True]
            other.enter_context(locked([one]))
        assert [training_folder(run).exists() for run in (one, two)] == [True, False]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs to be root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(file):
    """Leave 20 kB of the disk."""
    file.write_bytes(bytes(shutil.disk_usage(file.parent).free - 20_000))


def test_a_full_disk_leaves_the_checkpoint_before(tiny_world, samples, small_disk, tmp_path):
    out, filler = small_disk / "out", small_disk / "filler"
    with pytest.raises(VtcError) as caught:
        stage_1(tiny_world, samples, out, every=2, keep=1, advance=AtStep(3, lambda: fill(filler)))
    assert caught.value.exit_code == 1
    assert "the checkpoint of step 4 could not be written" in str(caught.value)
    assert "go on from step-00000002 with --resume" in str(caught.value)
    assert steps(out / "tokenpacker-v4") == ["step-00000002"]
    filler.unlink()
    (again,) = stage_1(tiny_world, samples, out, every=2, keep=1, resume=True)
    (whole,) = stage_1(tiny_world, samples, tmp_path / "whole")
    same_run(whole, again)


def test_a_disk_too_small_for_the_run_is_told_before_training(tiny_world, samples, small_disk):
    fill(small_disk / "filler")
    trained = []
    with pytest.raises(VtcError, match=r"a trial of saving .* could not be written"):
        stage_1(tiny_world, samples, small_disk / "out", advance=lambda *told: trained.append(told))
    assert not any(n for n, *_ in trained)
    assert not (small_disk / "out").exists()


def test_a_run_that_cannot_be_written_at_the_end_keeps_its_last_step(
    tiny_world, samples, small_disk, tmp_path
):
    out, filler, write = small_disk / "out", small_disk / "filler", Checkpoints.write

    def write_and_fill(*args):
        write(*args)
        fill(filler)

    with (
        patch.object(Checkpoints, "write", write_and_fill),
        pytest.raises(VtcError, match="its last checkpoint is whole: make room"),
    ):
        stage_1(tiny_world, samples, out, every=9)
    filler.unlink()
    assert steps(out / "tokenpacker-v4") == ["step-00000009"]
    (again,) = stage_1(tiny_world, samples, out, resume=True)
    (whole,) = stage_1(tiny_world, samples, tmp_path / "whole")
    same_run(whole, again)


def test_a_generation_config_that_cannot_be_saved_does_no_harm(tiny_world, samples, tmp_path):
    # Vicuna ships one: temperature and top_p beside greedy decoding.
    llm = tmp_path / "vicuna-like"
    shutil.copytree(tiny_world.qwen, llm)
    bad = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "transformers_version": "4.31.0"}
    (llm / "generation_config.json").write_text(json.dumps(bad))

    class World:
        encoder, qwen = tiny_world.encoder, llm

    (run,) = stage_1(World, samples, tmp_path / "one")
    (tuned,) = stage_2(run, samples, tmp_path / "two", "full")
    saved = json.loads((tuned / "generation_config.json").read_text())
    assert not {"temperature", "top_p"} & set(saved)


def test_a_loss_that_is_no_number_names_its_samples(tiny_world, tmp_path, samples):
    one = build(tiny_world)
    freeze_all_but_compressor(one.model)
    settings = STAGE_1.with_(accumulate=2, max_steps=4)
    batches = collator(one, samples, settings)
    bad = samples.rows[7]["sample_id"]

    class Poisoned:
        """Batches in which one image is no number."""

        def __call__(self, indices):
            batch = batches(indices)
            if 7 in indices:
                batch["vision_levels"] = batch["vision_levels"] * math.nan
            return batch

    run = tmp_path / "run"
    with pytest.raises(VtcError, match=r"loss is nan at step \d; lower --lr .*run.fault.json"):
        fit_model(one.model, batches.dataset, Poisoned(), settings, run)
    fault = json.loads((tmp_path / "run.fault.json").read_text())
    (batch,) = fault["batches"]
    assert bad in batch["samples"]
    assert len(batch["samples"]) == 4
    # The step was not taken.
    assert all(weight.isfinite().all() for weight in one.model.compressor.parameters())
