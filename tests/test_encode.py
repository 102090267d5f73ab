"""The feature cache: what is written comes back, and what does not fit is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import GRID, TinyWorld
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shell import vtc

from vtc.commands.encode import encode
from vtc.data.feature_cost import CacheCost
from vtc.data.feature_shards import Plan, write_features
from vtc.data.features import DTYPES, FeatureStore, Layout, preprocessing_hash
from vtc.data.images import open_image
from vtc.errors import InputError
from vtc.model.assemble import assemble
from vtc.model.backbones import Encoder, load_encoder
from vtc.model.encode import layout_of, pool_layout, requested_levels, write_encoded
from vtc.model.run import load_run, save_run

LAYOUT = Layout((2,), (2, 2), 4, "fp16")


def plan_of(root: Path, images, layout=LAYOUT, **more) -> Plan:
    """A plan over files that hold their own names."""
    for image in images:
        (root / image).write_text(image)
    encoder = {"name": "e", "path": "/e", "fingerprint": "f"}
    return Plan(root, images, layout, encoder, "p", **more)


def ones(images):
    """Features of images: the n-th of the plan a, b, c, ... is full of n."""
    for image in images:
        yield torch.full((1, 1, 4, 4), float(ord(image) - ord("a")))


@pytest.fixture(scope="module")
def encoder(tiny_world: TinyWorld) -> Encoder:
    return load_encoder(tiny_world.encoder)


@pytest.fixture(scope="module")
def store(tiny_world: TinyWorld, encoder: Encoder, tmp_path_factory) -> FeatureStore:
    folder = tmp_path_factory.mktemp("cache") / "features"
    layout = layout_of(encoder, requested_levels(encoder.tower.config), "fp32")
    write_encoded(folder, encoder, tiny_world.images, tiny_world.image_names, layout, batch_size=4)
    return FeatureStore.open(folder)


def test_cache_holds_what_the_model_would_compute(tiny_world: TinyWorld, store: FeatureStore):
    built = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4)
    names = [tiny_world.image_names[index] for index in (3, 0, 3)]
    images = [open_image(tiny_world.images, name) for name in names]
    pixels = built.processor.image_processor(images, return_tensors="pt")["pixel_values"]
    read = store.reader(built.model.compressor.request.levels)
    torch.testing.assert_close(read(names), built.model.model.encode(pixels))
    only = store.reader([3])
    assert torch.equal(only(names), read(names)[:, 1:])
    assert len(store) == len(tiny_world.image_names)
    assert "0.png" in store


def test_levels_of_the_shipped_compressors(encoder: Encoder):
    config = encoder.tower.config
    assert requested_levels(config) == (2, 3)
    assert requested_levels(config, ["avgpool"]) == (3,)
    with pytest.raises(InputError, match="choose from"):
        requested_levels(config, ["nonsense"])
    with pytest.raises(InputError, match="outside an encoder of 4 layers"):
        layout_of(encoder, [9], "fp16")


def test_other_encoder_preprocessing_level_or_image_is_refused(
    tiny_world: TinyWorld, encoder: Encoder, store: FeatureStore
):
    made = preprocessing_hash(encoder.image_processor)
    store.check(encoder.source.fingerprint, made)
    other = load_encoder(tiny_world.siglip)
    with pytest.raises(InputError, match="another encoder"):
        store.check(other.source.fingerprint, made)
    with pytest.raises(InputError, match="other image preprocessing"):
        store.check(encoder.source.fingerprint, preprocessing_hash(other.image_processor))
    with pytest.raises(InputError, match="lack level 1"):
        store.reader([1, 3])
    with pytest.raises(InputError, match=r"lack image gone\.png"):
        store.get(["0.png", "gone.png"])


def test_a_run_preprocesses_as_its_encoder(tiny_world: TinyWorld, encoder: Encoder, tmp_path: Path):
    """A cache made from the encoder's folder serves the runs that stand on it."""
    built = assemble(tiny_world.encoder, tiny_world.qwen, "avgpool", 4)
    save_run(
        tmp_path / "run", built.model, built.processor, encoder=built.encoder, llm=built.llm,
        stage="finetune", weights="full", seed=0,
    )  # fmt: skip
    run = load_run(tmp_path / "run")
    made = preprocessing_hash(encoder.image_processor)
    assert preprocessing_hash(run.processor.image_processor) == made
    assert run.encoder.fingerprint == encoder.source.fingerprint


def test_unfinished_and_damaged_caches_are_named(tmp_path: Path):
    folder = tmp_path / "features"
    with pytest.raises(InputError, match="does not exist"):
        FeatureStore.open(folder)
    write_features(folder, plan_of(tmp_path, ["a", "b"]), ones)
    shard = folder / "shard-00000.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    with pytest.raises(InputError, match=r"shard-00000.bin has 62 bytes in place of 64"):
        FeatureStore.open(folder)
    shard.write_bytes(whole[:-1] + b"\x7f")
    store = FeatureStore.open(folder)
    assert store.get(["a"]).eq(0).all()
    with pytest.raises(InputError, match=r"shard-00000.bin is damaged"):
        store.get(["a", "b"])
    (folder / "index.parquet").write_text("[]")
    with pytest.raises(InputError, match=r"index.parquet cannot be read"):
        FeatureStore.open(folder)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(InputError, match="no JSON object"):
        FeatureStore.open(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"no manifest\.json"):
        FeatureStore.open(folder)


def test_a_changed_image_is_refused_and_a_copied_one_is_not(tmp_path: Path):
    write_features(tmp_path / "f", plan_of(tmp_path, ["a", "b", "c"]), ones)
    store = FeatureStore.open(tmp_path / "f")
    os.utime(tmp_path / "a", ns=(5, 5))
    (tmp_path / "c").unlink()
    store.check_images(tmp_path, ["a", "b", "c"])
    (tmp_path / "b").write_text("x")
    with pytest.raises(InputError, match="image b has changed since it was encoded"):
        store.check_images(tmp_path, ["a", "b", "c"])


def test_a_failed_encoding_leaves_nothing(tmp_path: Path):
    root = tmp_path / "images"
    root.mkdir()
    plan = plan_of(root, ["a", "b"])

    def damaged(images):
        yield torch.ones(1, 1, 4, 4)
        raise InputError("image b: damaged")

    with pytest.raises(InputError, match=r"^image b: damaged$"):
        write_features(tmp_path / "features", plan, damaged)
    with pytest.raises(ValueError, match="features of 1 images for 2"):
        write_features(tmp_path / "features", plan, lambda images: [torch.ones(1, 1, 4, 4)])
    with pytest.raises(InputError, match=r"image b: features pass the range of fp16; .* bf16"):
        write_features(tmp_path / "features", plan, lambda images: [
            torch.ones(1, 1, 4, 4), torch.full((1, 1, 4, 4), 1e6)
        ])  # fmt: skip
    assert list(tmp_path.iterdir()) == [root]


class Shards:
    """An encoder of one-image shards that fails at an image, and counts what it was asked."""

    def __init__(self, fails: str = ""):
        self.fails = fails
        self.asked = ""

    def __call__(self, images):
        for image in images:
            self.asked += image
            if image == self.fails:
                raise InputError(f"image {image}: damaged")
            yield from ones([image])


def test_finished_shards_are_kept_and_gone_on_with(tmp_path: Path):
    out, plan = tmp_path / "f", plan_of(tmp_path, list("abcd"), images_per_shard=1)
    with pytest.raises(
        InputError, match=r"image c: damaged \(2 finished shards stay in .*--resume"
    ):
        write_features(out, plan, Shards("c"))
    assert not out.exists()
    with pytest.raises(InputError, match=r"2 of 4 shards of an unfinished .*--resume.*--force"):
        write_features(out, plan, Shards())
    other = plan_of(tmp_path, list("abcd"), Layout((3,), (2, 2), 4, "fp16"), images_per_shard=1)
    with pytest.raises(InputError, match=r"begun with levels \[2\], not \[3\]; --force"):
        write_features(out, other, Shards(), resume=True)
    # A shard that is not what was written is made again.
    (tmp_path / "f.encoding" / "shard-00000.bin").write_bytes(b"x" * 32)
    again = Shards()
    write_features(out, plan, again, resume=True)
    assert again.asked == "acd"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c", "d", "f"]
    found = FeatureStore.open(out).get(list("dcba"))
    assert found.flatten(1)[:, 0].tolist() == [3, 2, 1, 0]


def test_force_starts_anew(tmp_path: Path):
    plan = plan_of(tmp_path, list("ab"), images_per_shard=1)
    with pytest.raises(InputError):
        write_features(tmp_path / "f", plan, Shards("b"))
    anew = Shards()
    write_features(tmp_path / "f", plan, anew, force=True)
    assert anew.asked == "ab"
    write_features(tmp_path / "f", plan, anew, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "f"]


def test_two_encodings_into_one_folder_are_refused(tmp_path: Path):
    plan = plan_of(tmp_path, list("ab"))

    def meanwhile(images):
        with pytest.raises(
            InputError,
            match=f"f.encoding is being written by process {os.getpid()} on .*another -o",
        ):
            write_features(tmp_path / "f", plan, ones)
        yield from ones(images)

    write_features(tmp_path / "f", plan, meanwhile)
    assert len(FeatureStore.open(tmp_path / "f")) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_encode import Shards, ones, plan_of
from vtc.data.feature_shards import write_features

class Dies(Shards):
    def __call__(self, images):
        for batch in super().__call__(images):
            yield batch
            if images[-1] == "c":
                os.kill(os.getpid(), signal.SIGKILL)

root = Path(sys.argv[1])
write_features(root / "f", plan_of(root, list("abcd"), images_per_shard=1), Dies())
"""


def test_a_killed_encoding_is_gone_on_with(tmp_path: Path):
    here = str(Path(__file__).parent)
    code = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), here], check=False)
    assert code.returncode == -signal.SIGKILL
    assert not (tmp_path / "f").exists()
    plan = Plan(tmp_path, list("abcd"), LAYOUT, {"fingerprint": "f"}, "p", images_per_shard=1)
    rest = Shards()
    write_features(tmp_path / "f", plan, rest, resume=True)
    assert rest.asked == "cd"
    assert FeatureStore.open(tmp_path / "f").get(list("abcd")).flatten(1)[:, 0].tolist() == [
        0, 1, 2, 3
    ]  # fmt: skip


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    levels=st.lists(st.integers(0, 30), min_size=1, max_size=3, unique=True).map(sorted),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    width=st.integers(1, 5),
    dtype=st.sampled_from(sorted(DTYPES)),
    names=st.lists(st.text("ab é字", min_size=1), min_size=1, max_size=5, unique=True),
    per_shard=st.integers(1, 6),
    data=st.data(),
)
def test_any_layout_round_trips(tmp_path: Path, levels, grid, width, dtype, names, per_shard, data):
    layout = Layout(tuple(levels), grid, width, dtype, grid)
    generator = torch.Generator().manual_seed(len(names))
    features = torch.randn(len(names), *layout.shape, generator=generator).to(DTYPES[dtype])
    root = tmp_path / "images"
    root.mkdir(exist_ok=True)
    plan = plan_of(root, names, layout, images_per_shard=per_shard)

    def encode(images):
        rows = features[[names.index(image) for image in images]]
        cut = data.draw(st.integers(0, len(images)))
        return [part for part in (rows[:cut], rows[cut:]) if len(part)]

    write_features(tmp_path / "f", plan, encode, force=True)
    store = FeatureStore.open(tmp_path / "f")
    assert store.layout == layout
    order = data.draw(st.permutations(range(len(names))))
    picked = data.draw(st.permutations(range(len(levels))))
    found = store.reader([levels[index] for index in picked])([names[index] for index in order])
    assert torch.equal(found, features[order][:, picked])


def test_break_even_counts_passes():
    # The encoder takes 100 s a pass, the disk 20 s: 100 + 20 + 20 K < 100 K from K = 2 on.
    cost = CacheCost(1000, 2000, 10.0, 100.0)
    assert cost.break_even == 2
    assert cost.bandwidth == pytest.approx(20.0)
    assert cost.sentences() == [
        "features of 1,000 images: 2 kB, 2 B an image; the encoder makes 10 images/s (100 s a "
        "pass)",
        "reading must pass 20 B/s to be faster than the encoder; this disk takes 100 B/s: it pays "
        "from 2 passes over the images on (epochs x V)",
    ]
    assert CacheCost(1000, 1000, 10.0, 20.0).break_even == 4
    assert CacheCost(1000, 2000, 10.0, 15.0).break_even is None
    assert "it does not pay here" in CacheCost(1000, 2000, 10.0, 15.0).sentences()[1]


def test_pooled_features_give_the_same_tokens(
    tiny_world: TinyWorld, encoder: Encoder, tmp_path: Path
):
    layout = pool_layout(layout_of(encoder, [3], "fp32"), 9, ["avgpool"])
    assert layout.n_bytes(1) * 4 == layout_of(encoder, [3], "fp32").n_bytes(1)
    names = list(tiny_world.image_names)
    write_encoded(tmp_path / "f", encoder, tiny_world.images, names, layout)
    pooled = FeatureStore.open(tmp_path / "f").reader([3])(names)
    pixels = encoder.image_processor(
        [open_image(tiny_world.images, name) for name in names], return_tensors="pt"
    )["pixel_values"]
    for visual_tokens in (1, 9):
        model = assemble(tiny_world.encoder, tiny_world.qwen, "avgpool", visual_tokens).model.model
        whole = model.compress(model.encode(pixels))
        torch.testing.assert_close(model.compress(pooled), whole, atol=1e-6, rtol=1e-5)
    for name, visual_tokens in (("avgpool", 4), ("avgpool", 36), ("tokenpacker", 9)):
        model = assemble(tiny_world.encoder, tiny_world.qwen, name, visual_tokens).model.model
        with pytest.raises(ValueError, match=r"do not serve|asks for levels"):
            model.compress(pooled)


def test_pooling_is_for_compressors_that_allow_it(encoder: Encoder):
    layout = layout_of(encoder, [3], "fp16")
    with pytest.raises(InputError, match="tokenpacker needs every patch"):
        pool_layout(layout, 9, ["avgpool", "tokenpacker"])
    with pytest.raises(InputError, match="name the --compressor"):
        pool_layout(layout, 9, [])
    with pytest.raises(InputError, match="windows for 1, 4, 9, 36"):
        pool_layout(layout, 16, ["avgpool"])


@pytest.fixture
def samples(tiny_world: TinyWorld, tmp_path: Path) -> Path:
    turns = [{"from": "human", "value": "<image>\nRead ."}, {"from": "gpt", "value": "a"}]
    rows = [
        {"id": str(number), "image": name, "conversations": turns}
        for number, name in enumerate([*tiny_world.image_names, "0.png"])
    ]
    path = tmp_path / "samples.json"
    path.write_text(json.dumps(rows))
    return path


def test_command_encodes_samples_and_benchmarks(
    tiny_world: TinyWorld, samples: Path, tmp_path: Path
):
    benchmark = tmp_path / "read.toml"
    rows = [{"image": "1.png", "question": "Read .", "answers": ["a"]}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    benchmark.write_text(
        f'name = "read"\ntask = "ocr"\nrows = "rows.json"\nmetric = "exact_match"\n'
        f'images = "{tiny_world.images}"\n[columns]\nimage = "image"\n'
    )
    given = (samples, benchmark, "--images", tiny_world.images, "--encoder", tiny_world.encoder)
    out = tmp_path / "features"
    done = vtc("encode", *given, "-o", out)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert said[0].startswith("features of 6 images: 27.6 kB, 4.61 kB an image; the encoder makes")
    assert "faster than the encoder" in said[1]
    assert said[2:] == [f"wrote {out} (6 images, 0.028 MB)"]
    store = FeatureStore.open(out)
    assert store.layout == Layout((2, 3), (GRID, GRID), 32, "fp16", (GRID, GRID))
    assert store.manifest["footer"]["settings"]["n_images"] == 6
    assert store.get(["5.png"]).isfinite().all()


def test_command_names_a_truncated_image_and_leaves_nothing(
    tiny_world: TinyWorld, samples: Path, tmp_path: Path
):
    images = tmp_path / "images"
    images.mkdir()
    for name in tiny_world.image_names:
        content = (tiny_world.images / name).read_bytes()
        (images / name).write_bytes(content[:100] if name == "4.png" else content)
    before = sorted(tmp_path.iterdir())
    given = (samples, "--images", images, "--encoder", tiny_world.encoder)
    done = vtc("encode", *given, "-o", tmp_path / "features")
    assert done.returncode == 2
    failed = done.stderr.splitlines()[2:]
    assert len(failed) == 1
    assert "sample 4: image 4.png" in failed[0]
    assert "'vtc check-data SAMPLES --images" in failed[0]
    assert sorted(tmp_path.iterdir()) == before


def test_command_goes_on_where_a_broken_image_stopped_it(
    tiny_world: TinyWorld, samples: Path, tmp_path: Path
):
    images = tmp_path / "images"
    images.mkdir()
    for name in tiny_world.image_names:
        content = (tiny_world.images / name).read_bytes()
        (images / name).write_bytes(content[:100] if name == "5.png" else content)
    out = tmp_path / "features"
    given = [samples, "--images", images, "--encoder", tiny_world.encoder, "-o", out]
    arguments = [*map(str, given), "--shard-images", "2", "--compressor", "avgpool", "--pool", "9"]
    done = CliRunner().invoke(encode, arguments)
    assert isinstance(done.exception, InputError)
    assert "5.png" in str(done.exception)
    assert "2 finished shards stay in" in str(done.exception)
    (images / "5.png").write_bytes((tiny_world.images / "5.png").read_bytes())
    done = CliRunner().invoke(encode, [*arguments, "--resume"])
    assert done.exit_code == 0, done.output
    store = FeatureStore.open(out)
    assert store.layout.pooled
    assert [shard["n_images"] for shard in store.manifest["shards"]] == [2, 2, 2]
    assert store.get(list(tiny_world.image_names)).shape == (6, 1, 9, 32)
    done = CliRunner().invoke(encode, [*arguments, "--resume"])
    assert done.exit_code == 0
    assert "is whole already" in done.stderr
    done = CliRunner().invoke(encode, [*arguments, "--dtype", "fp32", "--resume"])
    assert "are finished, with dtype = fp16, not fp32" in str(done.exception)
    store.check_images(images, [])
    with pytest.raises(InputError, match="without image other"):
        store.check_made_for(store.layout, ["other.png"])
    with pytest.raises(InputError, match=r"are pooled .* encode again without --pool"):
        store.reader([0])


def test_dry_run_states_the_size_and_writes_nothing(
    tiny_world: TinyWorld, samples: Path, tmp_path: Path
):
    before = sorted(tmp_path.iterdir())
    given = (samples, "--images", tiny_world.images, "--encoder", tiny_world.encoder)
    arguments = [*map(str, given), "--compressor", "avgpool", "--dtype", "fp32", "--dry-run"]
    done = CliRunner().invoke(encode, [*arguments, "-o", str(tmp_path / "features")])
    assert done.exit_code == 0, done.output
    stated = dict(line.strip().split(maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert float(stated["megabytes_per_second"]) > 0
    assert stated["n_images"] == "6"
    assert stated["levels"] == "3"
    assert float(stated["megabytes"]) == pytest.approx(6 * GRID * GRID * 32 * 4 / 1e6, abs=5e-4)
    assert sorted(tmp_path.iterdir()) == before


def test_sources_under_different_roots_meet_in_their_common_folder(
    tiny_world: TinyWorld, tmp_path: Path
):
    arguments = ["--encoder", str(tiny_world.encoder), "--compressor", "avgpool"]
    for name in ("one", "two"):
        shutil.copytree(tiny_world.images, tmp_path / name)
        talk = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "red"}]
        row = {"id": name, "image": "0.png", "conversations": talk}
        (tmp_path / name / "samples.json").write_text(json.dumps([row]))
        arguments.append(str(tmp_path / name / "samples.json"))
    out = tmp_path / "features"
    done = CliRunner().invoke(encode, [*arguments, "-o", str(out)])
    assert done.exit_code == 0, done.output
    store = FeatureStore.open(out)
    assert store.manifest["image_root"] == str(tmp_path)
    assert all(f"{name}/0.png" in store for name in ("one", "two"))


def test_samples_and_benchmarks_under_different_roots_are_refused(
    tiny_world: TinyWorld, samples: Path, tmp_path: Path
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    item = {"question": "?", "answer": "!", "image": "0.png"}
    (elsewhere / "items.json").write_text(json.dumps([item]))
    toml = elsewhere / "bench.toml"
    toml.write_text(
        'name = "b"\ntask = "ocr"\nmetric = "exact_match"\nrows = "items.json"\n'
        '[columns]\nanswers = "answer"\nimage = "image"\n'
    )
    arguments = [str(samples), str(toml), "--encoder", str(tiny_world.encoder), "-o", "x"]
    done = CliRunner().invoke(encode, arguments)
    assert isinstance(done.exception, InputError)
    assert "different image roots" in str(done.exception)


def test_image_mode_makes_another_preprocessing(
    tiny_world: TinyWorld, samples: Path, tmp_path: Path
):
    given = [str(samples), "--encoder", str(tiny_world.encoder), "--compressor", "avgpool"]
    given += ["--images", str(tiny_world.images)]
    hashes = set()
    for number, mode in enumerate(([], ["--image-mode", "pad"], ["--image-mode", "pad"])):
        out = tmp_path / str(number)
        done = CliRunner().invoke(encode, [*given, *mode, "-o", str(out)])
        assert done.exit_code == 0, done.output
        hashes.add(FeatureStore.open(out).manifest["preprocessing"])
    assert len(hashes) == 2


def test_command_refuses_what_exists_before_loading_anything(samples: Path, tmp_path: Path):
    (tmp_path / "features").mkdir()
    done = vtc("encode", samples, "--encoder", "x", "-o", tmp_path / "features")
    assert done.returncode == 2
    assert "exists" in done.stderr
