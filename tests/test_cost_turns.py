"""What an elastic training takes: the mean over its V, or their sum, and the largest's memory."""

import json

import pytest
from click.testing import CliRunner

from vtc.commands.estimate import estimate
from vtc.errors import InputError

SET = (1, 9, 36)
RECIPE = """
[train-projector]
encoder = "openai/clip-vit-large-patch14-336"
llm = "Qwen/Qwen1.5-0.5B"
compressor = "{compressor}"
visual-tokens = [{own}]
{stage_1}
[finetune]
method = "full"
template = "chat"
{stage_2}
[data.train-projector]
rows = 25600
text-tokens = 30
supervised-tokens = 25
longest-text-tokens = 90
[data.finetune]
rows = 12800
text-only-rows = 1280
text-tokens = 250
supervised-tokens = 130
longest-text-tokens = 900
"""


def rows(folder, compressor, own=36, stage_1="", stage_2=""):
    file = folder / "recipe.toml"
    file.write_text(RECIPE.format(compressor=compressor, own=own, stage_1=stage_1, stage_2=stage_2))
    done = CliRunner().invoke(
        estimate, [str(file), "--format", "json", "--gpu", "a100-80gb"], catch_exceptions=False
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("compressor", "share"), [("mqt", 1 / 3), ("m3", 1.0)])
def test_it_is_the_mean_of_a_draw_and_the_sum_of_a_step_at_all(tmp_path, compressor, share):
    alone = [rows(tmp_path, compressor, own=v) for v in SET]
    stated = f"train-visual-tokens = {list(SET)}"
    elastic = rows(tmp_path, compressor, stage_1=stated)
    # Stage 2 goes on with the set of stage 1, or says its own.
    assert rows(tmp_path, compressor, stage_1=stated, stage_2=stated) == elastic
    for number, row in enumerate(elastic):
        each = [one[number] for one in alone]
        assert row["tokens"] == pytest.approx(share * sum(one["tokens"] for one in each), abs=1)
        own = [one["flops"] - one["flops_encoder"] for one in each]
        assert row["flops"] == pytest.approx(share * sum(own) + each[0]["flops_encoder"])
        assert row["flops_encoder"] == each[0]["flops_encoder"]
        assert row["memory_peak"] == each[-1]["memory_peak"]
        assert row["steps"] == each[0]["steps"]
        kind = "mean" if compressor == "mqt" else "sum"
        assert row["trained_visual_tokens"] == f"{kind} over 1, 9, 36"
        assert each[0]["trained_visual_tokens"] is None


def test_other_ways_to_say_the_set(tmp_path):
    published = rows(tmp_path, "m3", stage_1='train-visual-tokens = "published"')
    assert {row["trained_visual_tokens"] for row in published} == {"sum over 1, 9, 36"}
    setting = rows(tmp_path, "m3", stage_1='compressor-setting = ["trained=[1, 9]"]')
    assert [row["flops"] for row in setting] == [row["flops"] for row in published]
    later = rows(tmp_path, "mqt", stage_2='train-visual-tokens = "published"')
    assert [row["trained_visual_tokens"] for row in later] == [None, "mean over 1, 2, 4, ..., 36"]
    plain = rows(tmp_path, "mqt", stage_1="train-visual-tokens = [36]")
    assert plain == rows(tmp_path, "mqt")
    with pytest.raises(InputError, match="resampler is trained at one V"):
        rows(tmp_path, "resampler", stage_1="train-visual-tokens = [1, 36]")
