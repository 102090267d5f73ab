"""profile: real parts timed one by one, and the roofline that fits given times."""

import csv
import json

import pytest
import torch

from vtc.catalog import gpus
from vtc.catalog.shapes import EncoderShape, LlmShape
from vtc.cli import main
from vtc.cost.inference import Compressing, Service, Work, work
from vtc.cost.measure import Point, calibrate, measure, points
from vtc.cost.roofline import Machine, spent
from vtc.model.shaped import give_compressor, random_model

LLM = LlmShape(2, 32, 4, 2, 8, 64, 100, True)
VISION = EncoderShape(3, 32, 4, 64, 48, 8, True, 0)


def test_a_roofline_is_found_again():
    true = Machine(3e12, 4e10)
    works = [Work(f, b) for f in (1e8, 1e10, 1e12) for b in (1e6, 1e9)]
    timed = [Point(w, 2, float(spent(w, 2, true).seconds)) for w in works]
    found = calibrate(timed)
    assert found.flops == pytest.approx(true.flops)
    assert found.bandwidth == pytest.approx(true.bandwidth)
    # Noise moves it by about its own size.
    noisy = [Point(p.work, 2, p.seconds * (1.1 if i % 2 else 0.9)) for i, p in enumerate(timed)]
    assert calibrate(noisy).flops == pytest.approx(true.flops, rel=0.2)
    assert calibrate(noisy).bandwidth == pytest.approx(true.bandwidth, rel=0.2)


@pytest.mark.parametrize(("compressor", "classed"), [("tokenpacker", True), ("quecc", False)])
def test_every_part_is_timed_at_every_setting(compressor, classed):
    vision = EncoderShape(3, 32, 4, 64, 48, 8, classed, 0)
    model = random_model(vision, LLM, compressor, 4, torch.float32, "cpu")
    assert sum(weight.numel() for weight in model.model.language_model.parameters()) == (
        LLM.n_matmul + LLM.n_head + 2 * 2 * 32 + 32
    )
    for v, service in (
        (4, Service(5, generated_tokens=3)),
        (9, Service(5, 7, 3, batch=2)),
        (1, Service(3, generated_tokens=1)),
    ):
        give_compressor(model, v)
        timing = measure(model, service, v, 2)
        decoded = {"decode"} if service.generated_tokens > 1 else set()
        assert set(timing.seconds) == {"encoder", "compressor", "prefill"} | decoded
        assert all(seconds > 0 for seconds in timing.seconds.values())
        assert timing.spread >= 0
        assert v > 1 or measure(model, service, v, 1).spread is None
        assert timing.peak_bytes > 0
        cost = Compressing(10, 1000, 2, needs_query=compressor == "quecc")
        found = points(LLM, vision, cost, v, service, timing, 4)
        assert len(found) == len(timing.seconds)
        if decoded:
            # Of a token: the work of all steps over their number, weights of four bytes.
            whole = work(LLM, vision, cost, float(v), service)["decode"]
            assert found[-1].work.bytes == pytest.approx(whole.bytes / 2 * 2)
            assert found[-1].work.flops == pytest.approx(whole.flops / 2)


def test_the_command_measures_and_recommend_reads_it(tmp_path, capsys):
    for name, config in (
        ("llm", {"model_type": "llama", "hidden_act": "silu", "hidden_size": 32,
                 "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                 "intermediate_size": 64, "vocab_size": 100, "tie_word_embeddings": True}),
        ("vision", {"model_type": "clip_vision_model", "hidden_size": 32, "num_hidden_layers": 3,
                    "num_attention_heads": 4, "intermediate_size": 64, "image_size": 48,
                    "patch_size": 8}),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    costs, row, best = (tmp_path / name for name in ("costs.csv", "gpus.csv", "best.json"))
    models = ["--encoder", str(tmp_path / "vision")]
    asked = ["profile", str(tmp_path / "llm"), *models, "--visual-tokens", "1,4", "--q", "5", "--g",
             "3", "--repeats", "1", "-o", str(costs), "--gpu-row", str(row)]  # fmt: skip
    main(asked, standalone_mode=False)
    assert "The roofline that fits these times" in capsys.readouterr().err
    rows = list(csv.DictReader(costs.open()))
    assert [(r["visual_tokens"], r["dtype"], r["device"]) for r in rows] == [
        ("1", "fp32", "cpu"), ("4", "fp32", "cpu"),
    ]  # fmt: skip
    [machine] = csv.DictReader(row.open())
    assert set(machine) == set(gpus.Gpu.__dataclass_fields__) - {"bf16_flops"} | {"bf16_tflops"}
    asked = ["recommend", "--latency", "900s", "--q", "5", "--g", "3", "--llm",
             str(tmp_path / "llm"), *models, "--costs", str(costs), "-o", str(best)]  # fmt: skip
    main(asked, standalone_mode=False)
    best = [json.loads(line) for line in best.read_text().splitlines()]
    assert {r["visual_tokens"] for r in best} == {1, 4}
    four = next(r for r in best if r["visual_tokens"] == 4)
    measured = {
        name: float(cell) for name, cell in rows[1].items() if name.endswith(("ms", "token"))
    }
    assert four["ttft_ms"] == pytest.approx(
        measured["encoder_ms"] + measured["projector_ms"] + measured["prefill_ms"]
    )
    assert four["decode_ms"] == pytest.approx(2 * measured["decode_ms_per_token"])
