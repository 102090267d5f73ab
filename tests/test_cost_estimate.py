"""vtc estimate: recipes in, a row a run out; and the refusals."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from vtc import cli
from vtc.catalog import encoders, gpus, llms
from vtc.commands.estimate import jobs_of
from vtc.cost.data import DataFacts, counted, stated
from vtc.cost.job import (
    Job,
    Parts,
    disk,
    estimate,
    fitting_batch,
    flops,
    memory,
    row_tokens,
    side_by_side,
    tokens,
)
from vtc.cost.llm import attention_flops
from vtc.cost.memory import NF4_BYTES, CompressorCost
from vtc.cost.query import query_flops
from vtc.cost.recipe import read_recipes
from vtc.errors import InputError
from vtc.tables import specs
from vtc.tables.quantity import format_flops
from vtc.train.settings import FINETUNE, PROJECTOR

PAPER = Path(__file__).parents[1] / "recipes" / "paper"
DATA = DataFacts(1000, 30, 20, 100, text_only_rows=200, images=800)
PARTS = Parts(
    "Qwen1.5-7B",
    llms.shape("Qwen1.5-7B"),
    "clip",
    encoders.shape("clip-vit-large-patch14-336"),
    "tokenpacker",
    CompressorCost(36_722_688, 15 * 10**9, 33 * 10**6, (12, 16, 22, 23)),
    144,
)
FLAGS = {
    "batch_size": 4, "accumulate": 8, "epochs": 1.0, "max_length": 2048, "dtype": "auto",
    "gradient_checkpointing": True, "optimizer": "adamw", "keep": 2,
}  # fmt: skip
STAGE_1 = Job("train-projector", "r.toml", PARTS, DATA, FLAGS)
FULL = Job("finetune", "r.toml", PARTS, DATA, {**FLAGS, "method": "full"})
LORA = {"method": "lora", "lora_r": 128, "lora_dropout": 0.05}
TUNED = Job("finetune", "r.toml", PARTS, DATA, {**FLAGS, **LORA})


def with_(job, **settings):
    return replace(job, settings={**job.settings, **settings})


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 1000])
@pytest.mark.parametrize("changes", [{}, {"epochs": 2.5}, {"max_steps": 7}, {"accumulate": 1}])
def test_steps_are_those_that_training_takes(rows, changes):
    job = replace(with_(STAGE_1, **changes), data=replace(DATA, rows=rows, text_only_rows=0))
    known = {name: job.settings.get(name) for name in ("batch_size", "accumulate", "max_steps")}
    real = PROJECTOR.with_(epochs=job.settings["epochs"], **known)
    assert job.steps == real.n_steps(rows)


def test_the_published_steps():
    pretrain = with_(replace(STAGE_1, data=replace(DATA, rows=558_128)), batch_size=32)
    assert pretrain.steps == 2181
    mix = replace(FULL, data=replace(DATA, rows=665_298))
    assert with_(mix, batch_size=16).steps == 5198


def test_tokens_are_of_rows_with_and_without_images():
    assert tokens(STAGE_1) == pytest.approx(1000 * 30 + 800 * 144)
    assert tokens(with_(STAGE_1, max_length=100)) == pytest.approx(200 * 30 + 800 * 100)
    several = replace(STAGE_1, data=replace(DATA, images_per_row=2))
    assert tokens(several) == pytest.approx(1000 * 30 + 800 * 2 * 144)


def test_flops_are_four_a_parameter_where_frozen_and_six_where_not():
    # Attention, head and compressor aside: at V = 144 they are a small part of 7B.
    n, encoder = PARTS.llm.n_matmul, flops(STAGE_1)[1]
    assert flops(STAGE_1)[0] - encoder == pytest.approx(4 * n * tokens(STAGE_1), rel=0.06)
    assert flops(FULL)[0] - encoder == pytest.approx(6 * n * tokens(FULL), rel=0.06)
    assert flops(STAGE_1)[0] < flops(TUNED)[0] < flops(FULL)[0]
    assert encoder == pytest.approx(800 * 366.0e9, rel=1e-3)


def test_a_cache_and_company_spare_the_encoder():
    assert flops(with_(STAGE_1, features="cache"))[1] == 0
    first, *_, last = side_by_side([replace(STAGE_1) for _ in range(8)], n_groups=2)
    assert flops(first)[1] == flops(last)[1] == flops(STAGE_1)[1] / 4
    assert memory(first).peak > memory(STAGE_1).peak
    assert disk(first) == disk(STAGE_1)
    small = CompressorCost(1000, 10**6, 10**3, (3,))
    shallow = replace(STAGE_1, parts=replace(PARTS, compressor=small))
    pair = side_by_side([STAGE_1, shallow])
    assert [flops(job)[1] for job in pair] == [flops(STAGE_1)[1] / 2] * 2
    assert memory(pair[0]).optimizer == memory(STAGE_1).optimizer + 8 * 1000
    assert flops(with_(STAGE_1, objective="align"))[0] < 0.3 * flops(STAGE_1)[0]


def test_a_recipe_counts_every_compressor_and_seed(tmp_path):
    text = SMALL.replace("[1, 16]", '[1, 16]\ncompressor = "avgpool,tokenpacker"\nseed = [0, 1, 2]')
    assert text != SMALL
    (tmp_path / "r.toml").write_text(text)
    plans = read_recipes([tmp_path / "r.toml"])
    jobs = jobs_of(plans[0])
    assert len(jobs_of(plans[1])) == len(jobs)
    assert [(job.parts.compressor_name, job.parts.visual_tokens) for job in jobs] == [
        *[("avgpool", 1), ("avgpool", 16), ("tokenpacker", 1), ("tokenpacker", 16)] * 3
    ]
    assert {len(job.beside) for job in jobs} == {3}


def test_hours_and_fit_are_of_the_gpu():
    card = gpus.find("a100-80gb")
    row = estimate(FULL, card, 0.5)
    assert specs.ESTIMATE.complete(row)["gpu_hours"] * 3600 * 156e12 == pytest.approx(row["flops"])
    # 18 bytes a parameter of 7.7 billion.
    assert (row["fits"], row["fitting_batch_size"]) == (False, None)
    assert estimate(TUNED, card)["fits"]
    assert estimate(TUNED, None).get("gpu_hours") is None
    assert specs.ESTIMATE.complete(estimate(TUNED, None))["fits"] is None


def test_the_fitting_batch_keeps_the_global_batch():
    job = replace(TUNED, data=replace(DATA, longest_text_tokens=2048))
    job = with_(job, batch_size=16, accumulate=3)
    fitting, usable = fitting_batch(job, gpus.find("l40s")), gpus.find("l40s").usable_bytes
    divisors = (1, 2, 3, 4, 6, 8, 12, 16, 24, 48)
    larger = divisors[divisors.index(fitting) + 1]
    assert memory(job, fitting).peak <= usable < memory(job, larger).peak


def test_four_bits_let_7b_into_16_gb_and_14b_into_24_gb():
    row = replace(DATA, longest_text_tokens=512)
    settings = {**TUNED.settings, "method": "qlora", "batch_size": 1}
    small = replace(TUNED, data=row, settings=settings)
    assert memory(small).peak < 16 * 2**30
    large = replace(small, parts=replace(PARTS, llm=llms.shape("Qwen1.5-14B")))
    assert memory(large).peak < 24 * 2**30


def test_disk_is_what_a_run_keeps():
    small = 4 * PARTS.compressor.n_params
    assert disk(STAGE_1)["disk_run"] == small
    assert disk(TUNED)["disk_run"] == small + 4 * PARTS.llm.n_lora(128)
    assert disk(FULL)["disk_run"] > 4 * PARTS.llm.n_params
    # Weight and two states of what trains; an older checkpoint, and the one being written.
    assert disk(STAGE_1)["disk_checkpoints"] == 2 * 3 * small
    # 4.7 MB an image for four unpooled levels.
    assert disk(STAGE_1)["disk_features"] == 800 * 4 * 576 * 1024 * 2


def test_facts_counted_of_samples():
    rows = [
        {"images": ["a.png"], "n_text_tokens": 12, "conversations": [
            {"role": "user", "text": "x" * 30}, {"role": "assistant", "text": "y" * 10}]},
        {"images": [], "n_text_tokens": None, "conversations": [
            {"role": "user", "text": "x" * 20}, {"role": "assistant", "text": "y" * 20}]},
    ]  # fmt: skip
    facts = counted(rows, "chat")
    assert (facts.rows, facts.text_only_rows, facts.images) == (2, 1, 1)
    assert (facts.text_tokens, facts.longest_text_tokens) == (11, 12)
    assert facts.supervised_tokens == (12 / 4 + 10 / 2) / 2
    plain = counted(rows, "plain")
    assert plain.text_tokens == plain.supervised_tokens == (2.5 + 5) / 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rows": 1}, "state text-tokens, supervised-tokens, longest-text-tokens"),
        ({"rows": "many"}, "rows is 'many', not a number"),
        ({"lines": 3}, "'lines' is no statistic"),
    ],
)
def test_statistics_at_fault_are_named(table, message):
    with pytest.raises(InputError, match=message):
        stated(table, "recipe r.toml")


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.run(["estimate", *map(str, arguments)])
    return caught.value.code


def recipe(tmp_path, text: str, name="r.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


SMALL = """
[train-projector]
encoder = "clip-vit-large-patch14-336"
llm = "Qwen/Qwen2.5-0.5B-Instruct"
visual-tokens = [1, 16]
[finetune]
method = "lora"
[data.train-projector]
rows = 1000
text-tokens = 20
supervised-tokens = 20
longest-text-tokens = 50
[data.finetune]
rows = 500
text-tokens = 40
supervised-tokens = 20
longest-text-tokens = 100
"""


def test_a_recipe_becomes_a_row_a_run(tmp_path, capsys):
    assert run(recipe(tmp_path, SMALL), "--gpu", "RTX 4090", "--format", "csv") == 0
    shown = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    assert [(row["command"], row["visual_tokens"]) for row in rows] == [
        ("train-projector", "1"), ("train-projector", "16"), ("finetune", "1"), ("finetune", "16"),
    ]  # fmt: skip
    assert {row["fits"] for row in rows} == {"True"}
    assert list(rows[0]) == specs.ESTIMATE.column_names
    # The commands' own defaults: 32 x 8 and 16 x 8.
    assert [row["steps"] for row in rows] == ["4", "4", "4", "4"]
    assert int(rows[2]["steps"]) == FINETUNE.n_steps(500)
    assert "4 runs, 16 steps" in shown.err
    assert "GPU-hours at 35% of its peak" in shown.err


def test_what_no_gpu_can_hold_exits_with_3(tmp_path, capsys):
    large = SMALL.replace("Qwen2.5-0.5B-Instruct", "Qwen2.5-72B")
    assert run(recipe(tmp_path, large), "--gpu", "l4", "--format", "json") == 3
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 4
    assert json.loads(shown.out.splitlines()[0])["fits"] is False
    assert "Error: none of these runs fits l4; try a larger --gpu" in shown.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL.replace("method", "metod"), "[finetune]: 'metod' is no option of finetune"),
        (SMALL.replace('"lora"', '"lara"'), "method: 'lara' is not one of"),
        (SMALL.replace("[data.finetune]", "[data.other]"), "[data.other] is of no command"),
        (SMALL.replace('llm = "Qwen/Qwen2.5-0.5B-Instruct"', ""), "no llm; name it in"),
        (SMALL.replace("0.5B-Instruct", "0.4B"), "nor in the catalog"),
        (SMALL.replace("[1, 16]", "[1, 15]"), "tokenpacker cannot make 15 visual tokens"),
        (SMALL.replace("[1, 16]", '"one"'), "states no visual-tokens such as [1, 4]"),
        (SMALL + "\n[[job]]\nmodel = 3", "[[job]] has no key 'model'"),
        ("lr = 1e-3", "'lr' does not belong there"),
        ("[finetune]", "no [train-projector], which names encoder"),
        ("lr =", "is not valid TOML"),
        (SMALL.replace('method = "lora"', "batch-size = 0"), "--batch-size 0 must be above 0"),
    ],
)
def test_recipes_at_fault_are_one_line(tmp_path, capsys, text, message):
    assert run(recipe(tmp_path, text)) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert message in shown.err
    assert "r.toml" in shown.err


def test_no_recipe_and_no_gpu_are_named(tmp_path, capsys):
    assert run(tmp_path) == 2
    assert "no recipe (*.toml) in this folder" in capsys.readouterr().err
    assert run(tmp_path / "none.toml") == 2
    assert "does not exist" in capsys.readouterr().err
    assert run(recipe(tmp_path, SMALL), "--gpu", "tpu") == 2
    assert "--gpu tpu is unknown; choose from rtx3090" in capsys.readouterr().err


def test_statistics_may_be_counted_from_a_samples_table(tmp_path):
    from vtc.tables.write import write_rows

    turns = [{"role": "user", "text": "<image>\nWhat?"}, {"role": "assistant", "text": "A cat."}]
    rows = [
        {"sample_id": str(n), "images": ["a.png"], "conversations": turns, "regions": None,
         "n_text_tokens": 9} for n in range(6)
    ]  # fmt: skip
    write_rows(rows, specs.SAMPLES, str(tmp_path / "s.parquet"), force=False)
    text = SMALL.split("[data.finetune]")[0] + '[data.finetune]\nsamples = "s.parquet"\n'
    planned = read_recipes([recipe(tmp_path, text)])
    facts = planned[-1].data
    assert (facts.rows, facts.images, facts.text_tokens) == (6, 1, 9)


def test_recipes_share_their_first_stage():
    apart = [len(read_recipes([PAPER / name])) for name in ("full.toml", "lora.toml")]
    together = read_recipes([PAPER / "full.toml", PAPER / "lora.toml"])
    stages = [(one.command, one.llm) for one in together if one.command == "train-projector"]
    assert len(stages) == len(set(stages)) == 6
    assert len(together) == sum(apart) - 5


@pytest.mark.parametrize(
    ("flops", "words"),
    [(5.1e10, "51 GFLOP"), (3e12, "3 TFLOP"), (7.52e20, "752 EFLOP"), (1.2e21, "1.2 ZFLOP")],
)
def test_flops_in_words(flops, words):
    assert format_flops(flops) == words


def test_four_bits_of_a_frozen_llm_count_in_stage_1():
    saved = memory(STAGE_1).weights - memory(with_(STAGE_1, load_4bit=True)).weights
    assert saved == pytest.approx(PARTS.llm.n_matmul * (2 - NF4_BYTES), rel=1e-3)


def asking(job, **facts):
    """The job with a compressor that reads the question, and other facts of its data."""
    compressor = replace(job.parts.compressor, needs_query=True)
    parts = replace(job.parts, compressor=compressor)
    return replace(job, parts=parts, data=replace(job.data, **facts))


def test_questions_are_read_once_by_a_frozen_llm_and_at_every_step_by_one_that_trains():
    one = query_flops(PARTS.llm, 20)
    # 800 of 1000 samples have an image.
    assert flops(asking(STAGE_1, query_tokens=20))[0] - flops(STAGE_1)[0] == pytest.approx(
        800 * one
    )
    few = asking(STAGE_1, query_tokens=20, distinct_questions=11)
    assert flops(few)[0] - flops(STAGE_1)[0] == pytest.approx(11 * one)
    tuned = asking(FULL, query_tokens=20, distinct_questions=11)
    assert flops(tuned)[0] - flops(FULL)[0] == pytest.approx(800 * one)


def test_an_answer_a_row_where_each_question_has_its_own_image():
    """A dialogue of 3 questions: 3 times the image, and 1 + 2 + 3 thirds of the text."""
    talk = asking(FULL, questions=3.0, query_tokens=20)
    assert row_tokens(talk) == (144 + 20, 30)
    assert tokens(talk) == pytest.approx(800 * (3 * 144 + 60) + 200 * 30)
    apart = with_(talk, turns="independent")
    assert tokens(apart) == pytest.approx(800 * (3 * 144 + 30) + 200 * 30)
    assert tokens(with_(talk, query_scope="first")) == pytest.approx(tokens(FULL))
    assert memory(talk).activations > memory(FULL).activations


def test_a_question_costs_what_the_llm_does_for_it(tiny_world):
    """Its matrix products as torch counts them, which misses attention on the CPU."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModel

    from vtc.model.query import read_texts

    llm = AutoModel.from_pretrained(tiny_world.qwen, dtype=torch.float32)
    shape = llms.shape(tiny_world.qwen)
    with FlopCounterMode(display=False) as counter:
        read_texts(llm, [(5, 6, 7, 8, 9)], 1)
    attended = attention_flops(shape, 5, attention="causal")
    assert counter.get_total_flops() == query_flops(shape, 5) - attended
