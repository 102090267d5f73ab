"""The encoder runs once: runs side by side share its pass, and end as each would alone."""

import json
import random
import shutil

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from train_runs import about, same_run
from train_samples import build, read
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from vtc.errors import InputError, Interrupted
from vtc.model.backbones import load_encoder
from vtc.model.encode import image_bytes, layout_of, write_encoded
from vtc.tables.read import read_rows
from vtc.train import inputs as inputs_module
from vtc.train.checkpoints import Saving
from vtc.train.finetune import finetune_runs
from vtc.train.inputs import Inputs
from vtc.train.jobs import FinetuneJob, ProjectorJob
from vtc.train.projector import train_projectors
from vtc.train.relay import Relay
from vtc.train.settings import FINETUNE, PROJECTOR

QUICK = PROJECTOR.with_(batch_size=4, accumulate=2, max_steps=3, log_every=1, length_bucket=2)


class Passes:
    """Counts the images that any encoder's embeddings see."""

    def __init__(self):
        self.images = 0

    def __enter__(self):
        def count(module, args):
            if isinstance(module, CLIPVisionEmbeddings):
                self.images += len(args[0])

        self.handle = register_module_forward_pre_hook(count)
        return self

    def __exit__(self, *_):
        self.handle.remove()


def train(world, samples, visual_tokens, out, settings=QUICK, compressors=("tokenpacker",), **more):
    """The runs, the images encoded, what was said; `more`: seeds and saving, or of Inputs."""
    what = {name: more.pop(name) for name in ("seeds", "saving") if name in more}
    job = ProjectorJob(str(world.encoder), str(world.qwen), compressors, visual_tokens, out, **what)
    said = []
    with Passes() as passes:
        inputs = Inputs(samples, settings, say=said.append, **more)
        runs = train_projectors(job, inputs, footer=about(settings), say=said.append)
    return runs, passes.images, said


def weights(run):
    return (run / "compressor.safetensors").read_bytes()


def losses(run):
    log = read_rows(run / "train_log.parquet").rows
    return [(row["step"], row["loss"], row["grad_norm"], row["samples_seen"]) for row in log]


@pytest.fixture
def no_memory(monkeypatch):
    """Features that are never kept."""
    monkeypatch.setattr(inputs_module, "MEMORY_LIMIT", 0)


def test_side_by_side_is_as_one_by_one_and_encodes_once(tiny_world, tmp_path, no_memory):
    samples = read(tmp_path, tiny_world)
    together, images, said = train(tiny_world, samples, (1, 4, 9), tmp_path / "a")
    assert any("each batch is encoded once for 3 runs" in line for line in said)
    probes = 3  # `assemble` looks at a blank image, once a model.
    assert images == 3 * 2 * 4 + probes
    for run in together:
        alone, images, _ = train(
            tiny_world, samples, (int(run.name.split("-v")[1]),), tmp_path / "b"
        )
        assert images == 3 * 2 * 4 + 1
        assert weights(run) == weights(alone[0])
        assert losses(run) == losses(alone[0])
        assert len(losses(run)) == 3


BOTH = ("avgpool", "tokenpacker")


def is_as_alone(run, alone):
    """Assert that a run among several ended in the files of one that was alone."""
    same_run(run, alone)
    for name in ("config.json", "compressor.safetensors"):
        assert (run / name).read_bytes() == (alone / name).read_bytes()
    left, right = (json.loads((each / "manifest.json").read_text()) for each in (run, alone))
    for name in ("run_id", "seed", "compressor", "visual_tokens"):
        assert left[name] == right[name]
    assert left["footer"]["settings"] == right["footer"]["settings"]


def test_several_compressors_share_each_pass(tiny_world, tmp_path, no_memory):
    samples = read(tmp_path, tiny_world)
    together, images, said = train(tiny_world, samples, (4, 9), tmp_path / "a", compressors=BOTH)
    assert [run.name for run in together] == [
        *("avgpool-v4", "avgpool-v9", "tokenpacker-v4", "tokenpacker-v9")
    ]
    assert any("each batch is encoded once for 4 runs" in line for line in said)
    assert images == 3 * 2 * 4 + 4
    for run, name in zip(together[::2], BOTH, strict=True):
        alone, _, _ = train(tiny_world, samples, (4,), tmp_path / "b", compressors=(name,))
        is_as_alone(run, alone[0])


# Of 6 images tokenpacker's two levels, or no compressor's, are too much to keep.
@pytest.mark.parametrize(
    ("in_memory", "passes"), [("all", 6), ("one level", 6 + 24), ("one level, two V", 6 + 24)]
)
def test_several_compressors_share_what_memory_keeps(
    in_memory, passes, tiny_world, tmp_path, monkeypatch
):
    samples = read(tmp_path, tiny_world)
    names, visual_tokens = ("mlp", *BOTH), (36,)
    if in_memory != "all":
        model = build(tiny_world).model
        one_level = len(tiny_world.image_names) * image_bytes(model, 1)
        monkeypatch.setattr(inputs_module, "MEMORY_LIMIT", one_level)
    if in_memory.endswith("two V"):
        names, visual_tokens = BOTH, (4, 36)
    together, images, said = train(
        tiny_world, samples, visual_tokens, tmp_path / "a", compressors=names
    )
    assert images == passes + len(together)
    assert sum("kept in memory" in line for line in said) == 1
    for name in names:
        alone, _, _ = train(tiny_world, samples, (36,), tmp_path / "b", compressors=(name,))
        is_as_alone(tmp_path / f"a/{name}-v36", alone[0])


@pytest.mark.parametrize("kept", [True, False])
def test_several_seeds_end_as_each_alone(kept, tiny_world, tmp_path, monkeypatch):
    if not kept:
        monkeypatch.setattr(inputs_module, "MEMORY_LIMIT", 0)
    samples = read(tmp_path, tiny_world)
    together, images, said = train(
        tiny_world, samples, (4,), tmp_path / "a", compressors=BOTH, seeds=(5, 0)
    )
    assert [run.name for run in together] == [
        *("avgpool-v4-s5", "tokenpacker-v4-s5", "avgpool-v4-s0", "tokenpacker-v4-s0")
    ]
    assert images == (6 if kept else 2 * 24) + 4
    assert sum("for 2 runs" in line for line in said) == (0 if kept else 2)
    assert weights(together[1]) != weights(together[3])
    for seed, run in ((5, together[1]), (0, together[3])):
        settings = QUICK.with_(seed=seed)
        alone, _, _ = train(tiny_world, samples, (4,), tmp_path / f"b{seed}", settings)
        is_as_alone(run, alone[0])
    before = {run: weights(run) for run in together}
    shutil.rmtree(together[2])
    again, images, _ = train(
        tiny_world, samples, (4,), tmp_path / "a", compressors=BOTH, seeds=(5, 0),
        saving=Saving(resume=True),
    )  # fmt: skip
    assert images == (6 if kept else 24) + 1
    assert {run: weights(run) for run in again} == before


def test_what_cannot_train_together_is_refused_before_anything_is_written(tiny_world, tmp_path):
    samples = read(tmp_path, tiny_world)
    with pytest.raises(InputError, match="mlp cannot make 4 visual tokens"):
        train(tiny_world, samples, (36, 4), tmp_path / "a", compressors=("avgpool", "mlp"))
    mixed = QUICK.with_(weights="0.5")
    with pytest.raises(InputError, match="--weights draws other samples for every seed"):
        train(tiny_world, samples, (4,), tmp_path / "a", mixed, seeds=(0, 1))
    assert not (tmp_path / "a").exists()


def test_finetuned_runs_of_several_compressors_share_one_pass(tiny_world, tmp_path):
    samples = read(tmp_path, tiny_world)
    starts, _, _ = train(tiny_world, samples, (4,), tmp_path / "a", compressors=BOTH)
    settings = FINETUNE.with_(batch_size=4, accumulate=1, max_steps=2, log_every=1)
    said = []

    def finetune(runs, out):
        with Passes() as passes:
            job = FinetuneJob(tuple(runs), tmp_path / out)
            made = finetune_runs(job, Inputs(samples, settings, say=said.append))
        return made, passes.images

    # avgpool asks for one of the two levels that tokenpacker asks for.
    together, images = finetune(starts, "b")
    assert images == 6 + len(together)
    assert sum("kept in memory" in line for line in said) == 1
    for start, run in zip(starts, together, strict=True):
        (alone,), images = finetune([start], f"c-{start.name}")
        assert images == 6 + 1
        same_run(run, alone)


def test_one_cache_serves_several_compressors(tiny_world, tmp_path):
    samples = read(tmp_path, tiny_world)
    encoder = load_encoder(tiny_world.encoder)
    layout = layout_of(encoder, [2, 3], "fp32")
    names = list(tiny_world.image_names)
    write_encoded(tmp_path / "cache", encoder, tiny_world.images, names, layout)
    cache = {"features": tmp_path / "cache"}
    together, images, _ = train(
        tiny_world, samples, (4,), tmp_path / "a", compressors=BOTH, seeds=(0, 1), **cache
    )
    assert images == 4
    alone, _, _ = train(tiny_world, samples, (4,), tmp_path / "b", compressors=BOTH[:1], **cache)
    is_as_alone(together[0], alone[0])


def test_a_cache_or_memory_gives_the_same_weights(tiny_world, tmp_path, monkeypatch):
    samples = read(tmp_path, tiny_world)
    in_memory, images, _ = train(tiny_world, samples, (4,), tmp_path / "memory")
    assert images == 6 + 1
    monkeypatch.setattr(inputs_module, "MEMORY_LIMIT", 0)
    live, images, _ = train(tiny_world, samples, (4,), tmp_path / "live")
    assert images == 3 * 2 * 4 + 1
    encoder = load_encoder(tiny_world.encoder)
    for dtype in ("fp32", "bf16"):
        layout = layout_of(encoder, [2, 3], dtype)
        names = list(tiny_world.image_names)
        write_encoded(tmp_path / dtype, encoder, tiny_world.images, names, layout)
    cached, images, _ = train(
        tiny_world, samples, (4,), tmp_path / "cached", features=tmp_path / "fp32"
    )
    assert images == 1
    for run in (in_memory[0], cached[0]):
        for (_, loss, _, _), (_, other, _, _) in zip(losses(run), losses(live[0]), strict=True):
            assert loss == pytest.approx(other, abs=1e-6)
    half, _, _ = train(tiny_world, samples, (4,), tmp_path / "half", features=tmp_path / "bf16")
    for (_, loss, _, _), (_, other, _, _) in zip(losses(half[0]), losses(live[0]), strict=True):
        assert loss == pytest.approx(other, rel=0.02)


def test_turns_are_taken_in_order_and_chance_is_ones_own():
    relay, order = Relay(), []

    def work(name, n_turns):
        random.seed(0)
        torch.manual_seed(0)
        drawn = []
        for _ in range(n_turns):
            order.append(name)
            drawn.append((random.random(), float(torch.rand(()))))
            relay.pass_on()
        return drawn

    first, second = relay.run([lambda: work("a", 3), lambda: work("b", 5)])
    assert "".join(order) == "abababbb"
    assert first == second[:3]
    assert len(set(second)) == 5


def test_a_failure_stops_all_and_is_the_one_reported():
    relay, turns = Relay(), []

    def fails():
        relay.pass_on()
        raise ValueError("the cause")

    def goes_on():
        for turn in range(100):
            turns.append(turn)
            relay.pass_on()

    with pytest.raises(ValueError, match="the cause"):
        relay.run([fails, goes_on])
    assert len(turns) < 5


def test_one_that_was_told_to_stop_lets_the_others_come_to_their_stop():
    relay, stopped = Relay(), []

    def stops(name, turns):
        for _ in range(turns):
            relay.pass_on()
        stopped.append(name)
        raise Interrupted("stopped", 143)

    with pytest.raises(Interrupted):
        relay.run([lambda: stops("a", 1), lambda: stops("b", 4)])
    assert stopped == ["a", "b"]


def test_seeds_on_the_same_data_share_each_pass(tiny_world, tmp_path, no_memory):
    samples = read(tmp_path, tiny_world)
    shared = QUICK.with_(data_seed=5)
    together, images, said = train(
        tiny_world, samples, (4,), tmp_path / "a", shared, compressors=BOTH, seeds=(0, 1)
    )
    assert any("each batch is encoded once for 4 runs" in line for line in said)
    assert images == 3 * 2 * 4 + 4
    for run, seed in zip(together, (0, 0, 1, 1), strict=True):
        alone, _, _ = train(
            tiny_world, samples, (4,), tmp_path / f"s{seed}", shared.with_(seed=seed),
            compressors=(run.name.split("-")[0],),
        )  # fmt: skip
        is_as_alone(run, alone[0])
    # Another order than the seed's own.
    other, _, _ = train(tiny_world, samples, (4,), tmp_path / "own", compressors=("avgpool",))
    assert losses(other[0]) != losses(together[0])
