"""The feature cache: what is written comes back, and what does not fit is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import GRID, TinyWorld
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vtc.commands.encode import encode
from vtc.data.features import DTYPES, FeatureStore, Layout, preprocessing_hash, write_features
from vtc.data.images import open_image
from vtc.errors import InputError
from vtc.model.assemble import assemble
from vtc.model.backbones import Encoder, load_encoder
from vtc.model.encode import layout_of, requested_levels, write_encoded
from vtc.model.run import load_run, save_run

MADE_BY = {"encoder": {"name": "e", "path": "/e", "fingerprint": "f"}, "preprocessing": "p"}


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
    layout = Layout((2,), (2, 2), 4, "fp16")
    folder = tmp_path / "features"
    with pytest.raises(InputError, match="does not exist"):
        FeatureStore.open(folder)
    write_features(folder, ["a", "b"], [torch.ones(2, 1, 4, 4)], layout, MADE_BY)
    features = folder / "features.bin"
    features.write_bytes(features.read_bytes()[:-2])
    with pytest.raises(InputError, match="62 bytes in place of 64"):
        FeatureStore.open(folder)
    (folder / "index.json").write_text("[]")
    with pytest.raises(InputError, match="no JSON object"):
        FeatureStore.open(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"no manifest\.json"):
        FeatureStore.open(folder)


def test_a_failed_encoding_leaves_nothing(tmp_path: Path):
    layout = Layout((2,), (2, 2), 4, "fp16")

    def batches():
        yield torch.ones(1, 1, 4, 4)
        raise InputError("image b: damaged")

    with pytest.raises(InputError, match="damaged"):
        write_features(tmp_path / "features", ["a", "b"], batches(), layout, MADE_BY)
    with pytest.raises(ValueError, match="features of 1 images for 2"):
        write_features(tmp_path / "features", ["a", "b"], [torch.ones(1, 1, 4, 4)], layout, MADE_BY)
    assert list(tmp_path.iterdir()) == []


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    levels=st.lists(st.integers(0, 30), min_size=1, max_size=3, unique=True).map(sorted),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    width=st.integers(1, 5),
    dtype=st.sampled_from(sorted(DTYPES)),
    names=st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True),
    data=st.data(),
)
def test_any_layout_round_trips(tmp_path: Path, levels, grid, width, dtype, names, data):
    layout = Layout(tuple(levels), grid, width, dtype)
    generator = torch.Generator().manual_seed(len(names))
    features = torch.randn(len(names), *layout.shape, generator=generator).to(DTYPES[dtype])
    cut = data.draw(st.integers(0, len(names)))
    batches = [part for part in (features[:cut], features[cut:]) if len(part)]
    write_features(tmp_path / "f", names, batches, layout, MADE_BY, force=True)
    store = FeatureStore.open(tmp_path / "f")
    assert store.layout == layout
    order = data.draw(st.permutations(range(len(names))))
    picked = data.draw(st.permutations(range(len(levels))))
    found = store.reader([levels[index] for index in picked])([names[index] for index in order])
    assert torch.equal(found, features[order][:, picked])


def vtc(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vtc", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


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
    assert done.stderr.splitlines() == [f"wrote {out} (6 images, 0.028 MB)"]
    store = FeatureStore.open(out)
    assert store.layout == Layout((2, 3), (GRID, GRID), 32, "fp16")
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
    assert len(done.stderr.splitlines()) == 1
    assert "4.png" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_dry_run_states_the_size_and_writes_nothing(
    tiny_world: TinyWorld, samples: Path, tmp_path: Path
):
    before = sorted(tmp_path.iterdir())
    given = (samples, "--images", tiny_world.images, "--encoder", tiny_world.encoder)
    arguments = [*map(str, given), "--compressor", "avgpool", "--dtype", "fp32", "--dry-run"]
    done = CliRunner().invoke(encode, [*arguments, "-o", str(tmp_path / "features")])
    assert done.exit_code == 0, done.output
    stated = dict(line.strip().split(maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert stated["n_images"] == "6"
    assert stated["levels"] == "3"
    assert float(stated["megabytes"]) == pytest.approx(6 * GRID * GRID * 32 * 4 / 1e6, abs=5e-4)
    assert sorted(tmp_path.iterdir()) == before


def test_sources_under_different_roots_are_refused(
    tiny_world: TinyWorld, samples: Path, tmp_path: Path
):
    (tmp_path / "other").mkdir()
    other = (tmp_path / "other" / "samples.json").absolute()
    other.write_text(samples.read_text())
    arguments = [str(samples), str(other), "--encoder", str(tiny_world.encoder), "-o", "x"]
    done = CliRunner().invoke(encode, arguments)
    assert isinstance(done.exception, InputError)
    assert "different image roots" in str(done.exception)


def test_command_refuses_what_exists_before_loading_anything(samples: Path, tmp_path: Path):
    (tmp_path / "features").mkdir()
    done = vtc("encode", samples, "--encoder", "x", "-o", tmp_path / "features")
    assert done.returncode == 2
    assert "exists" in done.stderr
