"""Packed training is padded training: the same losses and gradients, and no sample sees another."""

import json

import pytest
import torch
from packed_runs import answers, batches_of, loss_and_gradients, mixed, model_of
from train_samples import build, write
from transformers import AutoConfig, AutoModel

from vtc import cli
from vtc.errors import InputError
from vtc.model import varlen
from vtc.model.run import load_run
from vtc.train.attention import set_attention
from vtc.train.log import FACTS, Described
from vtc.train.settings import FINETUNE, PROJECTOR

PACKED = FINETUNE.with_(pack=True)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5], [2, 5], [1], [4, 0]], ids=str)
@pytest.mark.parametrize(
    ("llm", "trains"), [("qwen", "compressor"), ("llama", "full"), ("qwen", "lora")]
)
def test_losses_and_gradients_are_those_of_padded_rows(tiny_world, tmp_path, llm, trains, rows):
    if trains == "compressor" and rows == [2, 5]:
        rows = [0, 3]  # without an image there is nothing to train
    one, model = model_of(tiny_world, llm, trains)
    padded, packed = batches_of(one, mixed(tmp_path, tiny_world), rows)
    assert packed["input_ids"].shape[0] == 1
    assert packed["input_ids"].numel() <= padded["input_ids"].numel()
    loss, gradients = loss_and_gradients(model, padded)
    set_attention(model, PACKED)
    if trains == "lora":
        model.activation_checkpointing_enable({"use_reentrant": False})
    again, others = loss_and_gradients(model, packed)
    assert again == pytest.approx(loss, abs=1e-5)
    assert gradients.keys() == others.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


def test_no_sample_sees_another(tiny_world, tmp_path):
    one, model = model_of(tiny_world, "qwen", "full")
    _, batch = batches_of(one, mixed(tmp_path, tiny_world), [0, 1, 2, 3])
    set_attention(model, PACKED)
    del batch["logits_to_keep"], batch["labels"], batch["shift_labels"]
    ends = batch["cu_seq_lens_q"].tolist()
    text = batch["input_ids"] != model.config.image_token_id
    with torch.no_grad():
        before = model(**batch, use_cache=False).logits
        # Row 1 has two images, the second and third of the batch.
        batch["vision_levels"][1:3] += 1
        inside = torch.zeros_like(text)
        inside[:, ends[1] : ends[2]] = True
        batch["input_ids"] = torch.where(inside & text, 7, batch["input_ids"])
        after = model(**batch, use_cache=False).logits
    changed = (before != after).any(dim=-1)[0]
    assert changed[ends[1] : ends[2]].all()
    assert not changed[: ends[1]].any()
    assert not changed[ends[2] :].any()


def test_the_log_counts_the_same_tokens(tiny_world, tmp_path):
    one = build(tiny_world)
    samples = mixed(tmp_path, tiny_world)
    counts = {
        Described(lambda rows, pack=pack: batches_of(one, samples, rows)[pack])([0, 1, 2])[FACTS]
        for pack in (False, True)
    }
    assert len(counts) == 1
    assert counts.pop().n_images == 3


def test_what_is_not_packed_runs_as_under_sdpa(tiny_world):
    one, model = model_of(tiny_world, "llama", "full")
    tokens = torch.arange(24).reshape(2, 12)
    mask = torch.ones_like(tokens)
    mask[0, :5] = 0
    llm = model.model.language_model
    with torch.no_grad():
        plain = [llm(tokens).last_hidden_state, llm(tokens, attention_mask=mask).last_hidden_state]
        said = answers(one, tiny_world)
        set_attention(model, PACKED)
        assert torch.equal(llm(tokens).last_hidden_state, plain[0])
        assert torch.equal(llm(tokens, attention_mask=mask).last_hidden_state, plain[1])
    assert answers(one, tiny_world) == said
    assert model.model.vision_tower.config._attn_implementation == "sdpa"


def test_the_kernel_of_a_gpu_gets_what_torch_documents():
    """No GPU here: the call is checked on meta tensors, the layout on a kernel written out."""
    kernel = varlen._kernel_of_torch()
    ends = torch.tensor([0, 5, 9], dtype=torch.int32)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 9, 16) for heads in (4, 2, 2))

    def written_out(query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):
        assert (max_q, max_k, window_size, enable_gqa) == (5, 5, (-1, 0), True)
        group = query.shape[1] // key.shape[1]
        sample = torch.bucketize(torch.arange(len(query)), cu_q[1:], right=True)
        seen = (sample[:, None] == sample[None]).tril()
        key, value = (part.repeat_interleave(group, dim=1) for part in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query, key) * scale
        weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1)
        return torch.einsum("hqk,khd->qhd", weights, value)

    class Layer(torch.nn.Module):
        is_causal, num_key_value_groups = True, 2

    here, _ = varlen.varlen_attention(
        Layer(), query, key, value, None, 0.0, 0.25, cu_seq_lens_q=ends, max_length_q=5
    )
    there = varlen.over_tokens(written_out, query, key, value, ends, 5, 0.25)
    torch.testing.assert_close(here, there, atol=1e-6, rtol=0)
    if kernel is not None:
        on_meta = [part.to("meta", torch.bfloat16) for part in (query, key, value)]
        shape = varlen.over_tokens(kernel, *on_meta, ends.to("meta"), 5, 0.25).shape
        assert shape == here.shape


SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 50, "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "more", "why"),
    [
        ("mistral", {"sliding_window": 8}, "its attention has sliding_window"),
        ("gemma2", {"head_dim": 8}, "it has layers of sliding_attention"),
        ("bloom", {}, "its attention cannot be replaced"),
        # Its attention never hears where samples end.
        ("stablelm", {}, "its samples see one another"),
        ("mistral", {"sliding_window": None}, None),
        ("qwen3", {"head_dim": 8}, None),
    ],
)
def test_an_llm_that_cannot_be_packed_is_found_out(kind, more, why):
    torch.manual_seed(0)
    llm = AutoModel.from_config(AutoConfig.for_model(kind, **SHAPE, **more))
    llm.set_attn_implementation(varlen.NAME)
    chance = torch.get_rng_state()
    if why is None:
        varlen.check_packing(llm)
    else:
        with pytest.raises(ValueError, match=why):
            varlen.check_packing(llm)
    assert torch.equal(torch.get_rng_state(), chance)


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (FINETUNE, {"turns": "independent"}, "--turns independent needs a mask"),
        (FINETUNE, {"attention": "eager"}, "--attention eager does not know where"),
        (FINETUNE, {"attention": "flex"}, "--attention flex does not know where"),
        (FINETUNE, {"compile": True}, "--compile compiles for shapes that stay"),
        (PROJECTOR, {"objective": "align"}, "--pack is for --objective lm"),
    ],
)
def test_what_does_not_go_with_it_is_refused(settings, changes, message):
    with pytest.raises(InputError, match=message):
        settings.with_(pack=True, **changes)


def run(*words):
    with pytest.raises(SystemExit) as caught:
        cli.run([str(word) for word in words])
    return caught.value.code


def test_both_stages_on_the_command_line(tiny_world, tmp_path, capsys):
    samples = ("--images", tiny_world.images, "--batch-size", 4, "--accumulate", 1)
    pretrain, few = write(tmp_path), ("--max-steps", 2, "--log-every", 1)
    backbones = ("--encoder", tiny_world.encoder, "--llm", tiny_world.qwen, "--visual-tokens", 4)
    first = ("train-projector", pretrain, *samples, *backbones, *few)
    assert run(*first, "--pack", "--auto-batch", "-o", tmp_path / "runs") == 0
    assert run(*first, "-o", tmp_path / "plain") == 0
    losses = [losses_of(tmp_path / out / "tokenpacker-v4") for out in ("runs", "plain")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    config = tmp_path / "settings.toml"
    config.write_text("pack = true\n")
    mixed(tmp_path, tiny_world)
    lora = ("--method", "lora", "--lora-r", 4, "--lora-dropout", 0)
    start, tuned = tmp_path / "runs" / "tokenpacker-v4", "tiny-qwen-tokenpacker-v4"
    second = ("finetune", start, "--samples", tmp_path / "mixed.json", *samples, *lora, *few)
    assert run(*second, "--config", config, "-o", tmp_path / "out") == 0
    assert run(*second, "-o", tmp_path / "plain") == 0
    folder = tmp_path / "out" / tuned
    assert losses_of(folder) == pytest.approx(losses_of(tmp_path / "plain" / tuned), abs=1e-5)
    for file in tmp_path.rglob("*.json"):
        assert varlen.NAME not in file.read_text(), file
    settings = json.loads((folder / "manifest.json").read_text())["footer"]["settings"]
    assert settings["pack"] is True
    loaded = load_run(folder)
    assert loaded.model.model.language_model.config._attn_implementation == "sdpa"
    capsys.readouterr()
    assert run(*second, "--resume", "-o", tmp_path / "out") == 2
    assert "settings.pack = True, not False" in capsys.readouterr().err


def losses_of(folder):
    from vtc.tables.read import read_rows

    return [row["loss"] for row in read_rows(folder / "train_log.parquet").rows]


def test_a_window_is_refused_in_one_line_and_nothing_is_left(tiny_world, tmp_path, capsys):
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_world.qwen)
    config = MistralConfig(**{**SHAPE, "vocab_size": len(tokenizer) + 8}, sliding_window=8)
    MistralForCausalLM(config).save_pretrained(tmp_path / "llm")
    tokenizer.save_pretrained(tmp_path / "llm")
    capsys.readouterr()
    code = run(
        *("train-projector", write(tmp_path), "--images", tiny_world.images, "--pack"),
        *("--encoder", tiny_world.encoder, "--llm", tmp_path / "llm", "--visual-tokens", 4),
        *("--max-steps", 1, "-o", tmp_path / "runs"),
    )
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert said[-1] == (
        "Error: an LLM of type mistral cannot be packed: its attention has sliding_window; "
        "leave out --pack"
    )
    assert not list((tmp_path / "runs").glob("*"))


def test_a_packed_step_is_estimated_by_its_own_tokens():
    from test_cost_estimate import FULL, with_

    from vtc.cost.job import memory, packed_text

    # 100 text tokens in the longest row and 30 in the mean one, images aside.
    padded = {rows: memory(FULL, rows).activations for rows in (1, 8)}
    packed = with_(FULL, pack=True)
    assert memory(packed, 1).activations == padded[1]
    unsorted = with_(packed, length_bucket=1)
    assert packed_text(unsorted, 8) == (100 + 7 * 30) / 8
    assert packed_text(unsorted, 8) < packed_text(packed, 8) < 100
    activations = memory(unsorted, 8).activations
    assert activations < memory(packed, 8).activations < padded[8]
