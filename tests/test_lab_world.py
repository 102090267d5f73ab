"""The miniature world: its pages, pictures and questions, and the folder they make."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shell import vtc

from vtc.data.conversations import parse_row
from vtc.errors import InputError
from vtc.lab import documents, facts, glyphs, questions, rendering, scenes, tokenizer, words
from vtc.lab.backbones import Source
from vtc.lab.presets import FULL, PRESETS, QUICK, TINY
from vtc.lab.world import write_world

FACTS = facts.make(0, colour_zipf=0.5, role_zipf=1.0, colour_share=0.25)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab") / "world"
    done = vtc("lab", folder, "--preset", "tiny")
    assert done.returncode == 0, done.stderr
    return folder


def regions_by_image(world):
    return {
        row["image"]: row["regions"] for row in json.loads((world / "pretrain.json").read_text())
    }


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_no_shape_comes_twice_in_a_scene_and_no_cell_twice_on_a_page(seed):
    rng = np.random.default_rng(seed)
    for pages in (scenes.sample(rng, 5, FACTS), documents.sample(rng, 5)):
        for image, count in enumerate(pages.counts):
            assert np.count_nonzero(pages.content[image]) == count >= 1
            assert len(set(pages.cells[image, :count])) == count
            kinds = pages.content[image, :count] - words.span("kind").start
            if pages.content.shape[1] == 4:
                assert len(set(kinds // len(words.COLOURS))) == count


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_a_clean_picture_shows_what_stands_on_the_page(seed):
    rng = np.random.default_rng(seed)
    pages = documents.sample(rng, 3)
    pictures = rendering.draw(pages, rng, rendering.Camera(faintest=1.0, noise=0.0))
    ink = 1 - pictures.astype(float).min(-1) / pictures.max()
    masks = glyphs.characters()
    for image in range(3):
        for thing in range(pages.counts[image]):
            row, column = divmod(int(pages.cells[image, thing]), words.SIDE)
            cell = ink[image, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            seen = int(np.argmin(((masks - (cell > 0.5)) ** 2).sum((1, 2))))
            assert seen + words.span("character").start == pages.content[image, thing]


def test_every_glyph_differs_from_every_other():
    for masks in (glyphs.characters(), glyphs.shapes()):
        flat = masks.reshape(len(masks), -1)
        apart = (flat[:, None] != flat[None]).sum(-1) + 64 * np.eye(len(masks), dtype=int)
        assert apart.min() >= 2
        assert flat.sum(1).min() >= 7


def test_answers_follow_from_the_regions(world):
    regions = regions_by_image(world)
    asked = 0
    for row in json.loads((world / "finetune.json").read_text()):
        shown = dict(region["text"].split() for region in regions[row["image"]])
        turns = row["conversations"]
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            text = question["value"].replace("<image>\n", "")
            asked += 1
            if text.startswith("letter in"):
                assert answer["value"] == shown[text.split()[-1]]
                continue
            role, _, cell = text.split()
            kind = shown[cell]
            if role == "colour":
                assert answer["value"] == kind.split("-")[0]
            else:
                known = FACTS.answers[
                    words.ID[kind] - words.span("kind").start,
                    words.ID[role] - words.span("role").start,
                ]
                assert answer["value"] == words.WORDS[known]
    assert asked > 100


def test_regions_stand_where_their_cell_is_named(world):
    for listed in regions_by_image(world).values():
        for region in listed:
            cell = region["text"].split()[0]
            row, column = "abcdefghijkl".index(cell[0]), int(cell[1:]) - 1
            assert int(region["y"] * 12) == row
            assert int(region["x"] * 12) == column


def test_the_tokenizer_covers_every_word_of_the_world(world):
    built = tokenizer.build()
    assert built(" ".join(words.WORDS)).input_ids == list(range(len(words.WORDS)))
    texts = []
    for name in ("pretrain.json", "finetune.json"):
        for row in json.loads((world / name).read_text()):
            texts += [
                turn["value"]
                for turn in row["conversations"]
                if turn["value"] != "<image>\ncaption"
            ]
            texts += [region["text"] for region in row.get("regions", ())]
    for name in ("reasoning", "ocr"):
        for row in json.loads((world / "benchmarks" / f"{name}.json").read_text()):
            texts += [row["question"], *row["answers"]]
    assert built.pad_token_id not in {token for ids in built(texts).input_ids for token in ids}


def test_the_chat_template_puts_nothing_but_marks_around_turns():
    turns = [
        {"role": "user", "content": "<image>\nmaker of disc"},
        {"role": "assistant", "content": "anna"},
    ]
    built = tokenizer.build()
    ids = built.apply_chat_template(turns, return_dict=True)["input_ids"]
    told = ["<image>", "maker", "of", "disc", "<answer>", "anna", "<eos>"]
    assert built.convert_ids_to_tokens(ids) == told
    prompt = built.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=True)
    assert built.convert_ids_to_tokens(prompt["input_ids"]) == told[:5]


def test_conversations_are_llava_rows_with_images_as_files(world):
    for name in ("pretrain.json", "finetune.json"):
        for number, row in enumerate(json.loads((world / name).read_text())):
            parsed = parse_row(row, str(number))
            with Image.open(world / "images" / parsed["images"][0]) as picture:
                assert picture.size == (96, 96)
                assert picture.mode == "RGB"


def test_benchmarks_and_training_share_no_image(world):
    trained = set(regions_by_image(world))
    for name in ("reasoning", "ocr"):
        rows = json.loads((world / "benchmarks" / f"{name}.json").read_text())
        assert len(rows) == len({row["id"] for row in rows})
        assert not trained & {row["image"] for row in rows}


def test_the_same_seed_gives_the_same_bytes_and_another_another(world, tmp_path):
    again = write_world(tmp_path / "again", TINY, Source(0, False, "both"))
    other = write_world(tmp_path / "other", TINY, Source(1, False, "both"))
    first = json.loads((world / "world.json").read_text())
    assert again["sha256"] == first["sha256"]
    kept = {name for name, sha in other["sha256"].items() if first["sha256"][name] == sha}
    changed = {"images", "finetune.json", "benchmarks/ocr.json", "encoder/model.safetensors"}
    assert not changed & kept


def test_llms_csv_names_the_folders_and_their_sizes(world):
    lines = (world / "llms.csv").read_text().splitlines()
    assert lines[0] == "model,family,n_params"
    for line, size in zip(lines[1:], TINY.sizes, strict=True):
        name, family, n_params = line.split(",")
        config = json.loads((world / "llm" / name / "config.json").read_text())
        assert (name, family) == (size.name, "mini")
        assert config["family"] == "mini"
        assert config["n_params_nominal"] == int(n_params)


def test_sizes_span_what_the_study_needs():
    def nonembedding(size):
        return size.layers * (4 * size.width**2 + 3 * size.width * size.mlp_width)

    spans = {p.name: nonembedding(p.sizes[-1]) / nonembedding(p.sizes[0]) for p in (QUICK, FULL)}
    assert len(QUICK.sizes) == 4
    assert spans["quick"] >= 30
    assert spans["full"] >= 80
    for size in FULL.sizes:
        assert size.width % (2 * size.heads) == 0


def test_an_untrained_seed_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(InputError, match="--train-backbones"):
        write_world(tmp_path / "world", PRESETS["quick"], Source(5, False, "both"))
    assert not list(tmp_path.iterdir())


def test_a_world_that_exists_is_kept(world):
    before = (world / "world.json").read_bytes()
    done = vtc("lab", world, "--preset", "tiny")
    assert done.returncode == 2
    assert "exists" in done.stderr
    assert "Traceback" not in done.stderr
    assert (world / "world.json").read_bytes() == before


def test_roles_are_asked_at_their_zipf_frequency():
    pages = scenes.sample(np.random.default_rng(0), 2000, FACTS)
    asked = questions.about_scenes(np.random.default_rng(1), pages, FACTS, 10)
    role = asked[..., 0] - words.span("role").start
    share = np.bincount(role.ravel(), minlength=words.span("role").size) / role.size
    assert np.abs(share - FACTS.role_weights).max() < 0.01
    assert FACTS.role_weights.sum() == pytest.approx(1)
    assert FACTS.role_weights[1] / FACTS.role_weights[4] == pytest.approx(4)


def test_questions_of_a_conversation_are_distinct():
    asked = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 4], [9, 9, 9, 9]])
    assert questions.distinct(asked, 3).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]]
    assert len(questions.distinct(asked, 1)) == 1


def test_objectives_change_the_encoder_only():
    encoder = TINY.encoder.with_objective("local")
    assert encoder == replace(TINY.encoder, objective="local")
