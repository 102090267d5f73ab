"""Refits of a run in one evaluation: weights are read once, rows are those of separate calls."""

import contextlib
import weakref
from pathlib import Path

import pytest
import torch
from conftest import TinyWorld
from test_evaluate_runner import make_exam, rows_of
from test_model_refit import logits
from train_runs import stage_2
from train_samples import read

from vtc.commands.eval_dry_run import report
from vtc.data.images import open_image
from vtc.evaluate import runner, vision
from vtc.evaluate.answered import Answer, Answers
from vtc.model.assemble import assemble
from vtc.model.refit import Refit, origin, refit_loaded, refitted
from vtc.model.run import load_run, save_run

ASKED = {"visionzip": (4, 20), "prumerge+": (9,), "tome": (4, 16), "fastv": (19, 27)}


@pytest.fixture(scope="module")
def runs(tiny_world: TinyWorld, tmp_path_factory) -> list[Path]:
    """Two mlp runs of one encoder, a part and a whole one."""
    root = tmp_path_factory.mktemp("refits")
    for name, llm, weights in (("part", "qwen", "compressor"), ("whole", "llama", "full")):
        built = assemble(tiny_world.encoder, getattr(tiny_world, llm), "mlp", seed=3)
        save_run(
            root / name, built.model, built.processor, encoder=built.encoder, llm=built.llm,
            stage="projector", weights=weights, seed=3,
        )  # fmt: skip
    return [root / "part", root / "whole"]


@pytest.fixture(scope="module")
def exam(tiny_world: TinyWorld, tmp_path_factory) -> runner.Exam:
    """Questions on images, on two of one kind, on none, and on one that is missing."""
    names = tiny_world.image_names
    shown = (*names, names[0], None, "missing.png")
    return make_exam(tmp_path_factory.mktemp("exam") / "a", tiny_world.images, rows_of(shown))


@contextlib.contextmanager
def quiet(what: str, total: int):
    yield lambda n: None


def evaluate(folders, exam, **how) -> list[dict]:
    return runner.evaluate(folders, [exam], runner.Settings(**how), quiet)


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The run_ids of what is loaded; when a run is, no other is alive."""
    found, alive = [], []

    def counted(*args, **kwargs):
        assert not [model for model in alive if model() is not None]
        run = load_run(*args, **kwargs)
        found.append(run.manifest["run_id"])
        alive.append(weakref.ref(run.model))
        return run

    monkeypatch.setattr(runner, "load_run", counted)
    return found


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """Images of each of the encoder's passes."""
    passes, encode = [], vision.encode_states

    def counted(tower, pixels, *args):
        passes.append(len(pixels))
        return encode(tower, pixels, *args)

    monkeypatch.setattr(vision, "encode_states", counted)
    return passes


@pytest.fixture(scope="module")
def wanted(runs):
    """The runs, and folders of their refits."""
    with contextlib.ExitStack() as stack:
        folders = list(runs)
        for name, tokens in ASKED.items():
            folders += stack.enter_context(refitted(runs, Refit(name, tokens)))
        yield folders


@pytest.fixture(scope="module")
def alone(wanted, exam) -> list[dict]:
    """The rows of separate calls."""
    return [row for folder in wanted for row in evaluate([folder], exam, batch_size=4)]


@pytest.mark.parametrize("blocks", [False, True])
def test_each_run_is_loaded_once_and_rows_are_those_of_separate_calls(
    wanted, alone, exam, tiny_world, loads, encoded, blocks, monkeypatch
):
    if blocks:
        monkeypatch.setattr(vision, "MEMORY_LIMIT", 3 * 2 * 36 * 32 * 4)
    together = evaluate(wanted, exam, batch_size=4)
    assert together == alone
    assert len({row["prediction"] for row in together}) > 10
    assert loads == [alone[0]["run_id"], alone[len(exam.items)]["run_id"]]
    # ToMe's merges make a pass for each of its V; all others see by one. With memory for a
    # part of the features each run has passes of its own.
    passes = (1 + len(ASKED["tome"])) * (2 if blocks else 1)
    assert sum(encoded) == len(tiny_world.image_names) * passes


def test_what_is_answered_is_loaded_no_more(runs, exam, loads):
    """A resume after the first V is done loads the run once, and asks the others alone."""
    with refitted(runs[:1], Refit("divprune", (4, 9, 16))) as folders:
        whole = evaluate(folders, exam)
        answers, n = Answers(), len(exam.items)
        for row, place in zip(whole[:n], range(n), strict=True):
            cells = ("prediction", "n_generated", "n_text_tokens", "answered_by", "fault")
            given = Answer(*(row[cell] for cell in cells))
            answers.add(row["run_id"], exam.benchmark.name, {place: given})
        loads.clear()
        rows = runner.evaluate(folders, [exam], runner.Settings(), quiet, answers)
        assert rows == whole
        assert loads == [whole[n]["run_id"]]


def test_features_kept_for_the_next_run_fit_in_memory_together(
    runs, exam, tiny_world, encoded, monkeypatch
):
    """Room for one V of ToMe and not for both: one is encoded anew for the second run."""
    n_images, each = len(tiny_world.image_names), 32 * 4
    most = []
    forget = vision.Look._make_room

    def watched(look, run, n):
        forget(look, run, n)
        most.append(sum(other.kept_bytes for other in look.beside) + n * look._image_bytes(run))

    monkeypatch.setattr(vision.Look, "_make_room", watched)
    with refitted(runs, Refit("tome", (4, 16))) as folders:
        expected = evaluate(folders, exam)
        assert sum(encoded) == 2 * n_images
        encoded.clear()
        most.clear()
        limit = 17 * each * (n_images + 1)
        monkeypatch.setattr(vision, "MEMORY_LIMIT", limit)
        assert evaluate(folders, exam) == expected
        assert 2 * n_images < sum(encoded) <= 4 * n_images
        assert max(most) <= limit


@pytest.mark.parametrize("how", ["fp32", "bf16", "nf4"])
def test_a_refit_in_memory_is_the_folder_loaded(runs, tiny_world, how):
    """The same logits, whatever stood there before; and the weights are those, not copies."""
    given = {"dtype": torch.bfloat16 if how == "bf16" else torch.float32}
    given |= {"four_bit": how == "nf4"}
    image = open_image(tiny_world.images, tiny_world.image_names[0])

    def shown(run):
        return logits(run.model, run.processor, image)

    wishes = [Refit("visionzip", (9,)), Refit("fastv", (20,)), Refit("tome", (5,))]
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(refitted(runs[1:], wish))[0] for wish in wishes]
        run = load_run(runs[1], **given)
        own, before = shown(run), run.model.compressor.linear_1.weight.data_ptr()
        for folder in folders:
            refit_loaded(run, folder)
            loaded = load_run(folder, **given)
            assert run.manifest == loaded.manifest
            mine, theirs = (one.model.config.to_dict() for one in (run, loaded))
            assert mine == {**theirs, "_name_or_path": mine["_name_or_path"]}
            assert torch.equal(shown(run), shown(loaded))
            assert run.model.compressor.linear_1.weight.data_ptr() == before
            assert not run.model.training
            assert not run.model.compressor.training
        refit_loaded(run, runs[1])
        assert torch.equal(shown(run), own)
        with pytest.raises(ValueError, match="part does not have the weights of"):
            refit_loaded(run, runs[0])


def test_lora_and_refits_of_refits(runs, tiny_world, tmp_path, exam, loads):
    """LoRA on a whole run; a refit's own refit is of the same origin."""
    (lora,) = stage_2(runs[1], read(tmp_path, tiny_world), tmp_path, "lora")
    with contextlib.ExitStack() as stack:
        folders = stack.enter_context(refitted([lora], Refit("divprune", (9, 16))))
        (again,) = stack.enter_context(refitted(folders[:1], Refit("visionzip", (4,))))
        assert origin(again) == origin(folders[1]) == origin(lora) == lora.resolve()
        asked = [*folders, again, lora]
        together = evaluate(asked, exam, batch_size=4)
        assert len(loads) == 1
        assert together == [row for f in asked for row in evaluate([f], exam, batch_size=4)]


def test_a_dry_run_counts_the_passes_that_are_made(runs, exam):
    """One for all V, but for ToMe, whose every V is one; a pass to V tokens costs less."""
    said = {}
    for name in ("divprune", "tome"):
        with refitted(runs, Refit(name, (4, 16))) as folders:
            lines = list(report(folders, [exam], runner.Settings(), {}, []))
        said[name] = lines[-1].split("the encoder's share ")[1]
    assert "(1 pass over 7 images)" in said["divprune"]
    assert "(2 passes over 7 images)" in said["tome"]


# Memory for all features, for those of one V of ToMe beside others', for three images', for none.
@pytest.mark.parametrize("room", [None, 16 * 32 * 4 * 8, 3 * 2 * 36 * 32 * 4, 1])
@pytest.mark.parametrize("which", ["refits", "tome", "trained"])
def test_a_dry_run_foresees_what_is_encoded(
    runs, wanted, exam, tiny_world, tmp_path, encoded, which, room, monkeypatch
):
    with contextlib.ExitStack() as stack:
        folders = wanted
        if which == "tome":
            folders = stack.enter_context(refitted(runs, Refit("tome", (4, 16))))
        elif which == "trained":
            folders = [trained(tiny_world, tmp_path, name) for name in ("tome", "avgpool", "mqt")]
        if room is not None:
            monkeypatch.setattr(vision, "MEMORY_LIMIT", room)
        *_, last = report(folders, [exam], runner.Settings(), {}, [])
        evaluate(folders, exam)
    passes = int(last.split("(")[1].split()[0])
    assert sum(encoded) == passes * len(tiny_world.image_names)
    if which == "trained":
        # Two of the three see by one pass, as long as its features are kept.
        assert passes == (2 if room is None else 3)


def trained(tiny_world: TinyWorld, root: Path, name: str) -> Path:
    """A run of another compressor than mlp at four tokens."""
    built = assemble(tiny_world.encoder, tiny_world.qwen, name, 4, seed=3)
    save_run(
        root / name, built.model, built.processor, encoder=built.encoder, llm=built.llm,
        stage="projector", weights="compressor", seed=3,
    )  # fmt: skip
    return root / name


def test_elastic_runs_too_and_tokens_fed_twice(runs, tiny_world, tmp_path, exam, loads):
    built = assemble(tiny_world.encoder, tiny_world.qwen, "mqt", 16, seed=3)
    save_run(
        tmp_path / "mqt", built.model, built.processor, encoder=built.encoder, llm=built.llm,
        stage="projector", weights="compressor", seed=3,
    )  # fmt: skip
    found = {}
    for v in ((16, 1, 9), (16,), (1,), (9,)):
        rows = evaluate([tmp_path / "mqt"], exam, visual_tokens=v)
        found[v] = [(row["visual_tokens"], row["prediction"]) for row in rows]
    assert found.pop((16, 1, 9)) == [pair for rows in found.values() for pair in rows]
    assert len(loads) == 1 + 3
    with refitted(runs, Refit("divprune", (4, 9))) as folders:
        loads.clear()
        twice = evaluate(folders, exam, repeat_visual_tokens=2)
        assert len(loads) == 2
        assert [row["visual_tokens"] for row in twice[:: len(exam.items)]] == [8, 18] * 2
        alone = [row for f in folders for row in evaluate([f], exam, repeat_visual_tokens=2)]
        assert twice == alone
        once = evaluate(folders, exam)
        assert [r["prediction"] for r in once] != [r["prediction"] for r in twice]
