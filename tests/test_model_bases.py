"""LLMs that cannot be one: encoder-only, seq2seq, classifiers; each refused in one line."""

import shutil
from pathlib import Path

import pytest
from conftest import TinyWorld
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    PretrainedConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from vtc.errors import InputError
from vtc.model.backbones import load_llm

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 400}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 2, "vocab_size": 400}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (BertModel, BertConfig(**SMALL, intermediate_size=64)),
        (T5ForConditionalGeneration, T5Config(**T5)),
        (LlamaForSequenceClassification, LlamaConfig(**SMALL, intermediate_size=64)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_causal_is_refused(
    tiny_world: TinyWorld, tmp_path: Path, kind: type, config: PretrainedConfig
):
    folder = shutil.copytree(tiny_world.llama, tmp_path / "llm")
    kind(config).save_pretrained(folder)
    with pytest.raises(InputError, match=f"a {kind.__name__} is no causal") as fault:
        load_llm(folder)
    assert "\n" not in str(fault.value)


def test_a_head_that_no_checkpoint_holds_is_not_made_up(tiny_world: TinyWorld, tmp_path: Path):
    """A config.json that does not say what it is of: its weights do."""
    import json

    folder = shutil.copytree(tiny_world.llama, tmp_path / "llm")
    config = LlamaConfig(**SMALL, intermediate_size=64)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    stated = json.loads((folder / "config.json").read_text())
    del stated["architectures"]
    (folder / "config.json").write_text(json.dumps(stated))
    with pytest.raises(InputError, match=r"its weights lack lm_head\.weight; it is no whole Llama"):
        load_llm(folder)
