"""recommend under real costs: known answers, brute force, limits, reasons in words, refusals."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtc.catalog import encoders, gpus, llms
from vtc.catalog.measurements import PUBLISHED
from vtc.commands import advice as commands_advice
from vtc.commands import deploying
from vtc.commands.recommend import recommend
from vtc.console import format_cell
from vtc.cost.compressor import _FORMULAS, stated
from vtc.cost.encoder import encoder_flops
from vtc.cost.inference import Compressing, Service, memory, work
from vtc.cost.llm import prefill_flops
from vtc.cost.query import query_flops
from vtc.cost.roofline import machine
from vtc.errors import InputError, NoAnswerError
from vtc.law.points import read_points, read_table
from vtc.law.power import from_row
from vtc.recommend import law_row, read_mix
from vtc.recommend.deploy import advise
from vtc.recommend.deploy_words import explain
from vtc.recommend.laws import of_row
from vtc.recommend.odds import best_shares, wasted
from vtc.tables import specs

PUBLISHED_ROWS = (read_table(str(PUBLISHED)), "published")
CLIP = encoders.shape("openai/clip-vit-large-patch14-336")


def parsed(line):
    """Flags as the command line gives them, its law and its LLMs."""
    flags = dict(recommend.make_context("recommend", line.split()).params)
    law, task, n, group = (flags.pop(name) for name in ("law", "task", "convention", "group"))
    return flags, read_mix(law, task, n, group), deploying.llms_of(flags)


def ask(line):
    flags, mix, models = parsed(line)
    assert not deploying.is_paper(flags)
    question = deploying.deployment(flags, mix, models)
    return question, advise(question)


def answered(line):
    """Rows and words; raises as the command does."""
    flags, mix, models = parsed(line)
    paper = deploying.is_paper(flags)
    answer = commands_advice.of_paper if paper else commands_advice.of_deployment
    rows, lines, columns = answer(flags, mix, models)
    for row in rows:
        specs.RECOMMENDATION.complete(row)
    assert commands_advice.shown(rows, columns)
    return rows, " ".join(lines)


# The answers of an independent roofline with the same efficiencies (8 tokens generated of the
# second half).
@pytest.mark.parametrize(
    ("line", "model", "v"),
    [
        ("--gpu rtx4090 --objective ttft --latency 30ms", "Qwen1.5-7B", 144),
        ("--gpu agx-orin-64gb --objective ttft --latency 120ms", "Qwen1.5-7B", 144),
        ("--gpu l4 --objective ttft --latency 100ms", "Qwen1.5-7B", 144),
        ("--gpu rtx4090 --latency 60ms --g 8", "Qwen1.5-1.8B", 576),
        ("--gpu rtx4090 --latency 60ms --g 8 --weights nf4", "Qwen1.5-7B", 64),
        ("--gpu a100-80gb --batch 64 --fps 125 --g 8", "Qwen1.5-7B", 16),
        ("--gpu a100-80gb --batch 64 --fps 83.3 --g 8", "Qwen1.5-14B", 4),
    ],
)  # fmt: skip
def test_known_answers(line, model, v):
    rows, _ = answered(line)
    assert (rows[0]["model"], rows[0]["visual_tokens"]) == (model, v)


def test_a_row_says_what_the_parts_say():
    _, found = ask("--gpu rtx4090 --latency 40ms --g 8 --usd-per-hour 0.4 --batch 2 --top 3")
    row = found.rows[0]
    llm, v = llms.find(row["model"]).shape, row["visual_tokens"]
    cost = stated("tokenpacker", CLIP, llm.hidden_size, v)
    service = Service(50, generated_tokens=8, batch=2)
    compressing = Compressing(cost.n_params, cost.flops, cost.level, cost.levels)
    parts, rtx = work(llm, CLIP, compressing, float(v), service), machine(gpus.find("rtx4090"))
    seconds = [max(2 * p.flops / rtx.flops, p.bytes / rtx.bandwidth) for p in parts.values()]
    assert row["latency_ms"] == pytest.approx(1e3 * sum(seconds))
    assert row["ttft_ms"] == pytest.approx(1e3 * sum(seconds[:3]))
    assert row["images_per_s"] == pytest.approx(2 / sum(seconds))
    assert row["usd_per_1k_images"] == pytest.approx(1000 * 0.4 / 3600 * sum(seconds) / 2)
    assert row["flops"] == pytest.approx(sum(p.flops for p in parts.values()))
    held = memory(llm, CLIP, compressing, float(v), service)
    assert row["memory_peak"] == pytest.approx(held.peak, rel=1e-9)
    assert row["memory_kv"] == pytest.approx(held.kv, abs=1)
    assert row["budget_share"] == pytest.approx(row["latency_ms"] / 40)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([gpu.gpu for gpu in gpus.catalog()]),
    st.sampled_from(["flops", "ttft", "latency", "throughput"]),
    st.floats(-1, 1.5),
    st.sampled_from(["reasoning", "ocr", "reasoning:0.5,ocr:0.5"]),
    st.integers(1, 32),
    st.sampled_from(["bf16", "int8", "nf4"]),
)
def test_rows_hold_the_budget_and_none_is_better(gpu, objective, size, task, batch, weights):
    budget = {
        "flops": f"--flops {10 ** (12 + size):.6g}",
        "ttft": f"--latency {10 ** (-1.5 + size):.6g}s --objective ttft",
        "latency": f"--latency {10 ** (-1 + size):.6g}s",
        "throughput": f"--fps {10 ** (1.5 - size):.6g}",
    }[objective]
    q, found = ask(
        f"--gpu {gpu} {budget} --task {task} --batch {batch} --weights {weights} --g 5 --top 999 "
        "--family qwen1.5,qwen2.5"
    )
    view = found.views[0]
    rows = view.rows
    limit = {"flops": q.limits.get("flops"), "throughput": q.limits.get("throughput")}
    for row in rows:
        assert row["memory_peak"] <= gpus.find(gpu).usable_bytes
        reached = {
            "flops": lambda r: r["flops"] <= limit["flops"],
            "ttft": lambda r: r["ttft_ms"] <= 1e3 * q.limits["ttft"] * (1 + 1e-12),
            "latency": lambda r: r["latency_ms"] <= 1e3 * q.limits["latency"] * (1 + 1e-12),
            "throughput": lambda r: r["images_per_s"] >= limit["throughput"] * (1 - 1e-12),
        }[objective]
        assert reached(row)
        assert row["budget_share"] <= 1 + 1e-12
        assert 0 <= row["wasted"] < 1
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    errors = [row["error"] for row in rows]
    assert errors == sorted(errors)
    assert len(rows) == int(view.fits.sum())
    if rows:
        assert errors[0] == pytest.approx(view.errors[view.fits].min())
        explain(q, found)
        # A tie in N and V shares its wins.
        assert sum(row["p_best"] for row in rows) == pytest.approx(1)
        # No row wastes what a worse one could not save: brute force.
        costs = [row["budget_share"] for row in rows]
        for row in rows[:20]:
            least = min(c for c, e in zip(costs, errors, strict=True) if e <= row["error"])
            assert row["wasted"] == pytest.approx(1 - least / row["budget_share"], abs=1e-9)


def test_the_best_shares_are_what_the_draws_say():
    mix = of_row("x", law_row("published", "ocr"))
    pairs = [
        (n, v) for n in (0.5e9, 1.8e9, 7e9) for v in (1, 16, 144, 576) if n * (50 + v) < 1.5e12
    ]
    shares = best_shares(mix, pairs)
    law = from_row(mix.row)
    wins = dict.fromkeys(pairs, 0)
    for draw in law.draws:
        wins[min(pairs, key=lambda pair: type(law)(*draw).error(*pair))] += 1
    assert shares == {p: count / len(law.draws) for p, count in wins.items() if count}
    assert best_shares(of_row("x", law_row("paper", "ocr")), pairs) == {}
    assert wasted([0.1, 0.1, 0.2], [4.0, 2.0, 1.0], 3) == [0.5, 0.0, 0.0]


def test_another_form_is_told_where_a_choice_extrapolates():
    rows, said = answered("--gpu a100-80gb --latency 10s --weights nf4")
    # By `vtc fit --form log-linear --at 72b:576`, digit for digit.
    points = np.array([point[:3] for point in read_points(*PUBLISHED_ROWS)[0].points])
    columns = [np.ones(len(points)), -np.log(points[:, 0] / 1e9), -np.log(points[:, 1])]
    c, a, b = np.linalg.lstsq(np.stack(columns, axis=1), points[:, 2], rcond=None)[0]
    rival = c - a * np.log(72) - b * np.log(576)
    assert rows[0]["error_log_linear"] == pytest.approx(rival, abs=1e-9)
    assert rival < rows[0]["error_low"]
    assert "predicts 0.374 for Qwen1.5-72B with 576 visual tokens, outside the interval" in said
    assert "linear in ln N" not in answered("--gpu rtx4090 --latency 30ms")[1]


@pytest.mark.parametrize("line", ["--flops 3e12", "--gpu rtx4090 --latency 60ms"])
def test_choices_that_tie_share_the_draws(line):
    rows, _ = answered(f"{line} --family all --top 10000")
    assert sum(row["p_best"] for row in rows) == pytest.approx(1)


def test_a_mix_is_the_weighted_mean():
    mix = read_mix("published", "reasoning:0.7,ocr:0.3")
    laws = [from_row(law_row("published", task)) for task in ("reasoning", "ocr")]
    both = [law.error(7e9, 16) for law in laws]
    assert mix.error(7e9, 16) == pytest.approx(0.7 * both[0] + 0.3 * both[1])
    assert mix.errors([7e9], [16])[0, 0] == pytest.approx(mix.error(7e9, 16))
    low, high = mix.interval(7e9, 16)
    assert low < mix.error(7e9, 16) < high
    few, many = (
        answered(f"--flops 3e12 --task reasoning:{w},ocr:{1 - w}")[0][0] for w in (0.9, 0.1)
    )
    assert few["visual_tokens"] < many["visual_tokens"]
    assert few["v_star"] < many["v_star"]
    assert few["task"] == "reasoning:0.9,ocr:0.1"


def test_quecc_pays_for_questions_that_it_does_not_know():
    def spent(compressor):
        _, found = ask(f"--flops 9e12 --q 20 --llm Vicuna-7B-v1.5 --compressor {compressor} "
                       "--visual-tokens 1")  # fmt: skip
        return found.rows[0]["flops_compressor"]

    own = stated("quecc", CLIP, 4096, 1).flops
    assert spent("quecc:query-cached") == own
    assert spent("quecc") == own + query_flops(llms.shape("Vicuna-7B-v1.5"), 20)


def test_tome_pays_less_for_the_encoder():
    """What its class says is left behind each layer, at every V."""
    from vtc.compress.statement import statement

    line = "--flops 9e12 --llm Qwen1.5-0.5B --visual-tokens 16,144,576 --images 2 --compressor"
    rows = {row["visual_tokens"]: row for row in answered(f"{line} tome")[0]}
    plain = answered(f"{line} resampler")[0][0]
    for v in (16, 144, 576):
        said = statement("tome", vision_width=1024, text_width=1024, depth=24, grid=CLIP.grid,
                         visual_tokens=v)  # fmt: skip
        assert rows[v]["flops_encoder"] == 2 * encoder_flops(CLIP, 23, said.patches_left)
        assert rows[v]["flops_compressor"] == 2 * said.flops
    assert rows[16]["flops_encoder"] < 0.5 * rows[576]["flops_encoder"]
    assert rows[576]["flops_encoder"] == plain["flops_encoder"]


def test_all_gpus_are_several():
    rows = answered("--gpu all --latency 100ms")[0]
    assert {row["rank"] for row in rows} == {1}


def test_a_compressor_without_a_formula_is_asked_itself(monkeypatch):
    line = "--flops 9e12 --compressor m3 --llm Qwen1.5-0.5B --visual-tokens 4,9"
    with_formula = ask(line)[1].static.total_flops
    monkeypatch.delitem(_FORMULAS, "m3")
    assert np.array_equal(ask(line)[1].static.total_flops, with_formula)


def test_images_prefix_and_no_encoder():
    _, found = ask("--flops 9e12 --images 3 --q 20 --q-cached 100 --encoder none --llm Qwen2.5-7B "
                   "--visual-tokens 4")  # fmt: skip
    row = found.rows[0]
    shape = llms.shape("Qwen2.5-7B")
    assert row["flops"] == prefill_flops(shape, 32, cached=100, attention="causal")
    assert (row["flops_encoder"], row["flops_compressor"], row["encoder"]) == (0, 0, None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--gpu rtx4090 --latency 30ms --q 0", "bound by reading its weights"),
        ("--gpu rtx4090 --latency 30ms --task ocr", "tokens lower the error more than parameters"),
        ("--flops 3e12 --cost-model exact", "50 tokens of text that no cache holds"),
        ("--flops 1e12 --cost-model exact --llm Qwen1.5-0.5B", "encoder and compressor take 9"),
        ("--gpu l4 --latency 1s --g 20", "generating 20 tokens takes"),
        ("--gpu rtx4090 --latency 200ms", "is the largest LLM that fits the memory"),
        ("--gpu rtx4090 --latency 28ms", "Just missed: Qwen1.5-7B with V = 144"),
        ("--gpu rtx4090 --latency 90ms", "But for the memory: Qwen1.5-14B"),
        ("--flops 6e11 --cost-model exact --q 0", "One visual token is the answer here: no text"),
        ("--flops 3e12", "One visual token is not the answer here: 50 tokens of text"),
        (
            "--gpu rtx4090 --latency 1s --g 50 --llm Qwen1.5-7B --visual-tokens 1",
            "the only real choice that fits. Of its 1.74 TFLOP: encoder 21%, compressor 1%, "
            "prefill 38%, decoding 40%. Of its 887 ms: encoder 3.69 ms, compressor 0.123 ms, "
            "prefill 17.6 ms, decoding 865 ms (most of it decoding, bound by bandwidth); 1.13 "
            "images a second. One visual token is all there was to choose from; "
            "generating 50 tokens takes 98% of the time",
        ),
        ("--flops 1.07e12 --cost-model exact --llm Qwen1.5-7B", "is all that the budgets leave"),
        (
            "--gpu rtx4090 --latency 1s --g 100 --objective ttft",
            "(most of it prefill, bound by compute), then decoding 1.79 s",
        ),
        ("--gpu l4 --latency 1s --g 100 --objective ttft", "; 50 tokens of text that no cache"),
        (
            "--gpu l4 --usd-per-hour 0.8 --budget-usd-per-1k-images 0.02",
            " of $0.02 for 1000 images, ",
        ),
        ("--gpu rtx4090 --latency 30ms", "18.4 GB of 25 GB of memory (97% of 24 GiB)"),
        ("--gpu rtx4090 --latency 30ms --vram 20GB", "18.4 GB of 20 GB of memory; the best"),
        ("--flops 3e12 --family all", "trust the order within a family, not between families"),
        ("--flops 3e12 --task ocr", "not the answer here: for ocr tokens lower the error more"),
        ("--flops 3e12 --q 500 --visual-tokens 4,144", "4 visual tokens are not the answer here"),
    ],
)  # fmt: skip
def test_it_says_when_one_token_is_not_the_answer_and_why(line, words):
    assert words in answered(line)[1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--gpu rtx4090 --latency 2ms", "below what the encoder alone takes on rtx4090, 3.69 ms"),
        ("--gpu l4 --fps 1000", "a throughput of 1,000 images a second is above what the encoder"),
        ("--flops 1e11 --g 3", "100 GFLOP is below what the encoder alone takes, 366 GFLOP"),
        ("--gpu rtx4090 --latency 4ms", "cheapest choice, Qwen1.5-0.5B with V = 1, needs 4.97 ms"),
        ("--gpu orin-nano-8gb --latency 1s --llm Qwen2.5-14B", "the smallest GPU of the catalog"),
        ("--gpu orin-nano-8gb --latency 1s --llm Qwen2.5-7B", "with --weights nf4 it needs 7.85"),
        ("--gpu l4 --latency 1s --llm Qwen1.5-72B", "more than any GPU of the catalog has"),
        ("--gpu l4 --latency 1s --llm Qwen1.5-72B", r"nf4 it needs 45\.3 GB, which l40s holds"),
        ("--gpu l4 --latency 1s --vram 2GB", "no LLM fits 2 GB of memory.*which l4 has: raise"),
        ("--flops 3e12 --vram 2GB", "no LLM fits 2 GB of memory.*that holds it is orin-nano-8gb"),
        ("--gpu l4 --latency 12ms --fps 500", "images a second"),
    ],
)
def test_why_nothing_fits(line, words):
    with pytest.raises(NoAnswerError, match=words):
        answered(line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--latency 30ms", "--latency needs a GPU"),
        ("--flops 3e12 --latency 30ms", "--latency needs a GPU"),
        ("--flops 3e12 --fps 10", "--fps needs a GPU"),
        ("--gpu l4", "no budget: give --flops"),
        ("--gpu l4 --latency 30ms --objective throughput", "needs its budget: give --fps"),
        ("--gpu l4 --budget-usd-per-1k-images 1", "give --usd-per-hour"),
        ("--flops 1e12 --cost-model paper --gpu l4", "knows no --gpu"),
        ("--flops 1e12 --usd-per-hour 3", "--usd-per-hour needs a GPU"),
        ("--gpu l4,h100 --latency 1s --usd-per-hour 3", "price of one GPU"),
        ("--gpu l5 --latency 1s", "--gpu l5 is unknown"),
        ("--gpu l4 --latency 1s --visual-tokens 5", "cannot make 5 visual tokens"),
        ("--gpu l4 --latency 1s --compressor nope", "no compressor is named 'nope'"),
        ("--gpu l4 --latency 1s --encoder none --compressor mlp", "nothing to compress"),
        ("--flops 3e12 --task reasoning:0.7,ocr:0.2", "sum to 0.9; they must sum to 1"),
        ("--flops 3e12 --task reasoning:0.7,ocr", "'ocr' is no TASK:WEIGHT"),
        ("--flops 3e12 --task ocr:0.5,ocr:0.5", "names ocr twice"),
        ("--flops 3e12 --n total", "counts N as nominal, not total"),
        ("--flops 3e12 --llm x --family qwen2.5", "leave --family and --models away"),
        ("--flops 3e12 --llm org/nowhere", "neither a model folder nor in the catalog"),
    ],
)
def test_contradictions_are_refused(line, words):
    with pytest.raises(InputError, match=words):
        answered(line)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta": 0.08}, r"alpha/beta is 0.887, outside its own interval \[4.32, 5.15\]"),
        ({"alpha": 1e308}, "outside its own interval"),
        ({"alpha": 9.0, "ratio_low": None}, "predict an error of 302 at N = 0.5B"),
        ({"k": 0.5}, "its draws 0.*: they are of another law; take both from one fit"),
        ({"unit": "millions"}, "N is counted in 'millions' inside k"),
        ({"draw_alpha": [0.1]}, "its draws are not aligned"),
        ({"draw_k": None}, "its draws are not aligned \\(draw_k 0, draw_alpha 400"),
        ({"k": 0.0}, "k is 0; it must be above zero"),
        ({"form": "log-linear"}, "recommend reads form power alone"),
        ({"d": 1.5}, "d is 1.5; an irreducible error lies in"),
        ({"level": 1.5}, "level is 1.5; a coverage lies between 0 and 1"),
        ({"n_convention": "mine"}, "n_convention is 'mine'; write nominal, total, non-embedding"),
        ({"visual_tokens_min": -5}, "visual_tokens_min -5 and visual_tokens_max 576 are no range"),
    ],
)
def test_hand_made_laws_are_checked(tmp_path, change, words):
    row = {**law_row("published", "reasoning"), **change}
    file = tmp_path / "law.json"
    file.write_text(json.dumps({name: cell for name, cell in row.items() if cell is not None}))
    with pytest.raises(InputError, match=words):
        answered(f"--flops 3e12 --law {file}")


def test_a_law_of_groups_is_asked_for_one(tmp_path):
    row, file = law_row("published", "reasoning"), tmp_path / "law.json"
    parts = [
        {**row, "by": "compressor", "group": name, "k": k} for name, k in (("a", 0.5), ("b", 0.6))
    ]
    file.write_text("\n".join(json.dumps(part) for part in parts))
    with pytest.raises(InputError, match="laws of groups alone; name one with --group: a, b"):
        answered(f"--flops 3e12 --law {file}")
    with pytest.raises(InputError, match="no group 'c'; name one with --group: a, b"):
        answered(f"--flops 3e12 --law {file} --group c")
    with pytest.raises(InputError, match="it was not fitted with --by"):
        answered("--flops 3e12 --group c")
    assert read_mix(str(file), None, None, "b").row["k"] == 0.6
    file.write_text("\n".join(json.dumps(part) for part in [row, *parts]))
    assert read_mix(str(file)).row["k"] == row["k"]


def test_own_shapes_and_folders(tmp_path):
    shape = llms.shape("Qwen2.5-0.5B")
    config = {
        "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "hidden_act": "silu",
        "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864,
        "vocab_size": 151936, "tie_word_embeddings": True, "n_params_nominal": 5 * 10**8,
    }  # fmt: skip
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    _, found = ask(f"--flops 9e11 --g 1 --llm {tmp_path}/mine,Qwen2.5-0.5B --visual-tokens 16")
    first, second = found.rows
    assert first["flops"] == second["flops"]
    assert first["n_params"] == second["n_params"] == 5 * 10**8
    table = tmp_path / "llms.csv"
    names = [name for name in specs.LLMS.column_names[5:] if hasattr(shape, name)]
    cells = ",".join(str(getattr(shape, name)) for name in names)
    table.write_text(f"model,n_params,{','.join(names)}\nx,5e8,{cells}\n")
    _, found = ask(f"--flops 9e11 --g 1 --models {table} --visual-tokens 16")
    assert found.rows[0]["flops"] == first["flops"]
    table.write_text("model,n_params\nx,5e8\n")
    with pytest.raises(InputError, match="exact costs need the shape of x"):
        ask(f"--flops 9e11 --g 2 --models {table}")


def test_measured_costs_replace_the_model(tmp_path):
    costs = tmp_path / "costs.csv"
    costs.write_text(
        "subject,device,dtype,batch,visual_tokens,text_tokens,encoder_ms,projector_ms,prefill_ms,"
        "decode_ms_per_token,peak_bytes\n"
        "Qwen/Qwen1.5-7B-Chat,NVIDIA GeForce RTX 4090,bf16,1,16,50,5,1,30,20,19000000000\n"
        "Qwen1.5-7B,rtx4090,bf16,1,16,50,5,1,32,20,19000000000\n"
        "Qwen1.5-7B,,bf16,1,4,50,,,25,,\n"
        "Qwen1.5-7B,l4,bf16,1,16,50,5,1,99,20,\n"
        "Qwen1.5-7B,rtx4090,nf4,1,16,50,5,1,99,20,\n"
    )
    line = f"--gpu rtx4090 --latency 1s --g 3 --llm Qwen1.5-7B --costs {costs} --top 9"
    rows = {row["visual_tokens"]: row for row in ask(line)[1].rows}
    assert (rows[16]["prefill_ms"], rows[16]["latency_ms"]) == pytest.approx((31, 5 + 1 + 31 + 40))
    assert (rows[16]["memory_peak"], rows[16]["measured"]) == (19 * 10**9, True)
    assert rows[4]["prefill_ms"] == pytest.approx(25)
    assert rows[4]["encoder_ms"] == pytest.approx(rows[1]["encoder_ms"])
    assert not rows[1]["measured"]
    assert "2 of 7 rows shown have measured costs" in answered(line)[1]
    with pytest.raises(InputError, match="holds 3 devices"):
        ask(f"--latency 1s --llm Qwen1.5-7B --costs {costs}")
    # Of one device no GPU need be named: there are the rows that were measured whole.
    lines = costs.read_text().splitlines()
    one = tmp_path / "one.csv"
    one.write_text("\n".join([lines[0], lines[1].replace("NVIDIA GeForce RTX 4090", "cpu")]))
    alone = ask(f"--latency 1s --g 3 --llm Qwen1.5-7B --costs {one}")[1].rows
    assert [(row["visual_tokens"], row["latency_ms"]) for row in alone] == [
        (16, pytest.approx(5 + 1 + 30 + 40))
    ]
    with pytest.raises(NoAnswerError, match="no latency is known of any of these choices"):
        answered(f"--latency 1s --llm Qwen1.5-4B --costs {one}")
    with pytest.raises(InputError, match="none of its 5 rows was measured at batch 2"):
        ask(f"{line} --batch 2")


def test_several_gpus_have_their_own_ranks():
    rows, words = answered("--gpu l4,rtx4090,orin-nano-8gb --latency 30ms --top 2")
    assert [(row["gpu"], row["rank"]) for row in rows] == [
        ("l4", 1), ("l4", 2), ("rtx4090", 1), ("rtx4090", 2),
    ]  # fmt: skip
    assert "encoder alone takes on orin-nano-8gb" in words


PAGES = [Path(__file__).parents[1] / name for name in ("README.md", "docs/recommend.md")]
EXAMPLES = [
    example
    for page in PAGES
    for example in re.findall(
        r"\$ vtc (recommend [^\n]*)\n```\n\n```text\n(.*?)```", page.read_text(), re.DOTALL
    )
]


@pytest.mark.parametrize(("line", "text"), dict(EXAMPLES).items())
def test_the_examples_of_the_pages_are_true(line, text):
    flags, mix, models = parsed(line.removeprefix("recommend "))
    paper = deploying.is_paper(flags)
    answer = commands_advice.of_paper if paper else commands_advice.of_deployment
    rows, lines, columns = answer(flags, mix, models)
    flat = " ".join(text.split())
    for sentence in lines:
        assert sentence in flat
    for row in commands_advice.shown(rows, columns):
        cells = [format_cell(cell) for cell in row.values()]
        assert " ".join(cells) in flat


def test_the_pages_have_examples():
    assert len(EXAMPLES) >= 5


def test_the_command_end_to_end(tmp_path):
    out = tmp_path / "r.json"
    line = "recommend --gpu rtx4090 --latency 30ms --format table"
    code = (
        "import sys; from vtc.cli import main; "
        f"main({line.split()!r}, standalone_mode=False); "
        f"main({[*line.split()[:-2], '-o', str(out)]!r}, standalone_mode=False); "
        "heavy = {'scipy', 'torch', 'pandas', 'pyarrow', 'transformers', 'matplotlib'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = [text.rstrip() for text in done.stdout.splitlines()]
    assert table[0].split() == [
        "model",
        "V",
        "error",
        "interval",
        "best",
        "regret",
        "ms",
        "bound",
        "GB",
    ]
    assert max(map(len, table)) <= 88
    rows = [json.loads(text) for text in out.read_text().splitlines()]
    assert rows[0]["bound"] == "prefill: compute"
    failed = subprocess.run(
        [sys.executable, "-m", "vtc", "recommend", "--gpu", "rtx4090", "--latency", "2ms"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (3, "", 1)
