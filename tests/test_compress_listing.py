"""`vtc compressors`: what it states, of which models, and what it refuses before torch."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_console_tables import on_a_terminal
from test_rooms import HEAVY

from vtc.commands.compressors import _range, compressors
from vtc.compress.choices import KNOWN
from vtc.errors import InputError

PAGE = Path(__file__).parents[1] / "docs" / "compressors.md"
LLAVA = ("--llm", "Vicuna-7B-v1.5")


def rows(*arguments: str) -> list[dict]:
    done = CliRunner().invoke(compressors, [*arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_states_what_is_known_of_llava():
    found = {(row["compressor"], row["visual_tokens"]): row for row in rows(*LLAVA)}
    assert {name for name, _ in found} == set(KNOWN)
    assert found["mlp", 576]["n_params"] == 20_979_712
    assert found["tokenpacker", 1]["n_params"] == 36_722_688
    assert found["mqt", 144]["n_params"] == 8_660_992
    assert ("mqt", 576) not in found
    assert found["mqt", 1]["supported"] == "1 to 256"
    assert found["avgpool", 1]["flops"] * 576 == found["mlp", 576]["flops"]
    assert found["tokenpacker", 4]["levels"] == "12, 16, 22, 23"
    elastic = {"mqt", "m3", "avgpool", "tokenpacker", "c-abstractor", "ldpv2"}
    assert {name for (name, _), row in found.items() if row["elastic"]} == elastic
    assert found["fastv", 144]["supported"] == "36 to 576"
    assert found["pyramiddrop", 144]["flops"] == found["mlp", 576]["flops"]
    asked = [row for row in found.values() if row["flops_query_token"]]
    assert {row["compressor"] for row in asked} == {"quecc", "llava-mini"}
    assert found["quecc", 1]["flops_query_token"] == pytest.approx(12.95e9, rel=1e-3)
    # Four layers of Llama-7B, whose matrices have 809.5 M weights, over 577 patches and tokens.
    assert found["llava-mini", 1]["flops_query_token"] == pytest.approx(
        2 * 809_500_672 + 4 * 4 * 4096 * 578
    )
    assert {name for (name, _), row in found.items() if row["fuses_text"]} == {"llava-mini"}


def test_the_encoder_is_cheaper_where_patches_merge_in_it():
    found = rows("tome", "avgpool", "resampler", *LLAVA, "--visual-tokens", "16,576")
    encoder = {(row["compressor"], row["visual_tokens"]): row["flops_encoder"] for row in found}
    assert (
        encoder["avgpool", 576] == encoder["tome", 576] == encoder["resampler", 16] == 366033858560
    )
    assert encoder["tome", 16] == pytest.approx(177e9, rel=2e-3)


def test_another_encoder_and_llm(tiny_world):
    [row] = rows(
        "avgpool", "--encoder", str(tiny_world.siglip), "--llm", str(tiny_world.qwen),
        "--visual-tokens", "9",
    )  # fmt: skip
    assert row["n_params"] == 32 * 48 + 48 + 48 * 48 + 48
    assert row["flops"] == 9 * 2 * (32 * 48 + 48 * 48)
    assert (row["supported"], row["levels"]) == ("1, 4, 9, 36", "3")


def test_an_encoder_without_a_class_token(tiny_world):
    siglip = ("--encoder", str(tiny_world.siglip), "--llm", str(tiny_world.qwen))
    found = rows(*siglip, "--visual-tokens", "9,36")
    assert {row["compressor"] for row in found} == {n for n in KNOWN if not KNOWN[n].needs_cls}
    free = {row["compressor"] for row in found if not row["trained"]}
    assert free == {"divprune", "tome", "fastv", "pyramiddrop"}
    done = CliRunner().invoke(compressors, ["prumerge+", *siglip])
    assert "this encoder has none (SigLIP); use divprune or tome, or an encoder" in str(
        done.exception
    )


@pytest.mark.parametrize(
    ("least", "most", "shown"),
    [
        (700_001, 700_900, "0.7M"),
        (1024, 600_000, "0.001 to 0.6M"),
        (20_000_000, 36_700_000, "20.0 to 36.7M"),
        (0, 0, "0"),
        (0, 99_000, "0 to 99000"),
        (12, 12, "12"),
        (12, 90, "12 to 90"),
    ],
)
def test_a_range_has_one_unit_and_equal_ends_once(least, most, shown):
    assert _range(least, most) == shown


def test_a_person_sees_a_line_each():
    done = CliRunner().invoke(compressors, ["m3", "blind", "ldpv2", "--visual-tokens", "1,4"])
    head, *lines = done.stdout.splitlines()
    assert "GFLOP at 1  GFLOP at 4" in head
    assert [line.split()[0] for line in lines] == ["m3", "blind", "ldpv2"]
    assert "1, 4, 9, ..., 576" in lines[2]
    assert done.stderr == ""
    table = CliRunner().invoke(compressors, ["m3", "--visual-tokens", "1", "--format", "csv"])
    assert next(csv.DictReader(io.StringIO(table.stdout)))["n_params"] == "2099200"


def test_it_says_what_it_leaves_out_and_what_the_text_costs(tiny_world):
    asked = ("--visual-tokens", "1,4,9,16", "--llm", str(tiny_world.qwen))
    said = CliRunner().invoke(compressors, ["--encoder", str(tiny_world.siglip), *asked]).stderr
    first, *more = said.splitlines()
    assert first.startswith("left out: visionzip, prumerge, prumerge+ (by the class token, which")
    assert "; mlp (makes 36), fastv (makes 18 to 36), pyramiddrop" in first
    assert first.endswith("none of the V asked for")
    assert [line.split(":")[0] for line in more] == ["quecc", "llava-mini"]
    quecc = CliRunner().invoke(compressors, ["quecc", *LLAVA])
    assert quecc.stderr == (
        "quecc: besides, 13 GFLOP for each token of the question, which the LLM reads for it\n"
    )
    asked = ["--visual-tokens", "9", "--format", "csv", "--encoder", str(tiny_world.siglip)]
    table = CliRunner().invoke(compressors, ["mqt", "mlp", *asked[2:], "--llm", "Qwen1.5-0.5B"])
    assert table.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("nope",), "no compressor is named 'nope'; choose from mlp, avgpool"),
        (
            ("tokenpacker", "--visual-tokens", "5"),
            "tokenpacker cannot make 5 visual tokens of a 24",
        ),
        (("--visual-tokens", "577"), "no compressor makes 577 visual tokens of a 24x24 grid"),
        (("--encoder", "nope"), "encoder nope is neither a model folder nor in the catalog"),
        (("--llm", "nope"), "llm nope is neither a model folder nor in the catalog"),
    ],
)
def test_what_it_refuses(arguments, fault):
    done = CliRunner().invoke(compressors, arguments)
    assert isinstance(done.exception, InputError)
    assert fault in str(done.exception)


def test_it_refuses_before_torch():
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print(set(sys.modules) & set({list(HEAVY)!r})))\n"
        "from vtc.cli import run\nrun(['compressors', 'm3', '--visual-tokens', '5'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "set()\n")
    assert done.stderr.startswith("Error: m3 cannot make 5 visual tokens of a 24x24 grid; choose")


def page_table() -> list[str]:
    """The table of the page, from the program."""
    shown = (1, 16, 144, 576)
    head = ["compressor", "V of a 24 x 24 grid", "parameters", *(f"V = {v}" for v in shown)]
    lines = [head, ["---"] * len(head)]
    found = rows(*LLAVA)
    for name in KNOWN:
        own = {row["visual_tokens"]: row for row in found if row["compressor"] == name}
        counts = [row["n_params"] for row in own.values()]
        sizes = dict.fromkeys(f"{count / 1e6:.2f} M" for count in (min(counts), max(counts)))
        flops = [f"{own[v]['flops'] / 1e9:.2f}" if v in own else "–" for v in shown]
        choices = next(iter(own.values()))["supported"].split(", ")
        if len(choices) > 8:
            choices = [*choices[:3], "...", choices[-1]]
        lines.append([f"`{name}`", ", ".join(choices), " to ".join(sizes), *flops])
    return [f"| {' | '.join(line)} |" for line in lines]


def test_the_pages_table_is_what_the_program_says():
    table = "\n".join(page_table())
    assert table in PAGE.read_text(encoding="utf-8"), f"docs/compressors.md should have:\n{table}"


def test_the_page_speaks_of_every_compressor_and_setting():
    import inspect

    from vtc.compress.registry import COMPRESSORS

    text = PAGE.read_text(encoding="utf-8")
    common = {"vision_width", "text_width", "depth", "grid", "visual_tokens", "level"}
    for name, kind in COMPRESSORS.items():
        section = text.split(f"### {name}\n", 1)
        assert len(section) == 2, f"docs/compressors.md has no section on {name}"
        said = section[1].split("\n### ")[0].split("\n## ")[0]
        paper = kind.source.rstrip(")").split()[-1]
        assert paper in said, f"{name}: {paper}"
        for setting in set(inspect.signature(kind).parameters) - common:
            assert f"`{setting}" in said, f"{name}: the page does not speak of {setting}"


def test_a_compressor_is_built_for_its_shapes_without_torchs_compiler():
    """nn.init on the meta device can load torch._dynamo, which takes seconds."""
    code = (
        "import sys, torch\nfrom vtc.compress.registry import COMPRESSORS, build\n"
        "with torch.device('meta'):\n"
        "    for name, kind in COMPRESSORS.items():\n"
        "        build(name, vision_width=8, text_width=8, depth=4, grid=(2, 2), "
        "visual_tokens=kind.supported((2, 2))[-1])\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def a_vit(folder: Path, **sizes: object) -> Path:
    """A ViT's folder without weights; of other layers than CLIP's."""
    config = {
        "model_type": "vit", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 64, "image_size": 48, "patch_size": 8,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**config, **sizes}))
    return folder


def test_of_rectangles_it_lists_what_makes_tokens_of_them(tiny_world, tmp_path):
    models = ("--encoder", str(a_vit(tmp_path, image_size=[32, 64])), "--llm", str(tiny_world.qwen))
    done = CliRunner().invoke(compressors, [*models, "--format", "json"])
    found = {(row["compressor"], row["visual_tokens"]): row for row in rows(*models)}
    assert {"mlp", "mqt", "resampler", "qformer", "blind", "prumerge"} <= {n for n, _ in found}
    assert found["mlp", 32]["flops"] == 32 * 2 * (32 * 48 + 48 * 48)
    embedding, a_layer = 32 * 2 * 192 * 32, 33 * (8 * 32**2 + 4 * 32 * 64) + 4 * 33**2 * 32
    assert found["mlp", 32]["flops_encoder"] == embedding + 2 * a_layer
    assert "ldpv2 (of square grids of patches alone; this encoder's is 4x8)" in done.stderr
    assert "tome (merges inside CLIP's and SigLIP's encoders alone)" in done.stderr
    refused = CliRunner().invoke(compressors, ["m3", *models])
    assert "m3 needs a square grid of patches, this encoder's is 4x8" in str(refused.exception)


def test_merging_needs_layers_and_those_of_clips_build(tiny_world, tmp_path):
    models = ("--encoder", str(a_vit(tmp_path)), "--llm", str(tiny_world.qwen))
    assert "tome" not in {row["compressor"] for row in rows(*models)}
    refused = CliRunner().invoke(compressors, ["mlp", "tome", *models])
    assert isinstance(refused.exception, InputError)
    assert str(refused.exception).startswith("tome merges tokens inside CLIP's and SigLIP's enc")
    # The penultimate state of one layer is its input.
    a_vit(tmp_path, model_type="clip_vision_model", num_hidden_layers=1)
    done = CliRunner().invoke(compressors, [*models, "--visual-tokens", "4,36"])
    assert done.exit_code == 0
    assert done.stderr.startswith("left out: tome (merges in the encoder's layers but the last, ")
    refused = CliRunner().invoke(compressors, ["tome", *models])
    assert "and this one has no other; use another compressor" in str(refused.exception)


def test_small_models_have_a_small_unit_and_a_name_given_twice_a_line(tiny_world):
    models = ("--encoder", str(tiny_world.encoder), "--llm", str(tiny_world.qwen))
    done = CliRunner().invoke(compressors, ["mlp", "tome", "mlp", *models])
    head, *lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["mlp", "tome"]
    assert "MFLOP at 36" in head
    assert "encoder's MFLOP" in head
    own = rows("mlp", *models)[0]
    assert lines[0].split()[3:6] == ["-", "-", "-"]
    assert f"{own['flops'] / 1e6:.4g}" in lines[0].split()
    table = CliRunner().invoke(compressors, ["mlp", "mlp", *models, "--format", "csv"])
    [row] = csv.DictReader(io.StringIO(table.stdout))
    assert (row["flops"], row["flops_query_token"]) == (str(own["flops"]), "0")
    assert row["flops_encoder"].isdigit()


def test_a_narrow_terminal_shows_fewer_v_and_what_each_needs(tiny_world):
    models = ("--encoder", tiny_world.encoder, "--llm", tiny_world.qwen)
    lines, words = on_a_terminal("compressors", *models, width=80)
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[-3:] == ["needs", "trained", "elastic"]
    assert "V = 1 " in lines[0]
    assert "V = ...: MFLOP for one image" in words
    [left] = [line for line in words.splitlines() if "do not fit here" in line]
    assert left.endswith("encoder's MFLOP, levels, source; --format csv shows all")
