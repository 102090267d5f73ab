"""Loading an LLM's tokenizer so that `<image>` is one token of it."""

from pathlib import Path
from typing import Any

from vtc.data.conversations import IMAGE
from vtc.errors import InputError

_AS_SAVED = ("TokenizersBackend", "PreTrainedTokenizerFast")


def load_tokenizer(llm: str | Path) -> Any:
    """The tokenizer of an LLM (folder or hub id), with `<image>` added as a special token.

    Raises InputError if there is none.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    try:
        declared = get_tokenizer_config(str(llm)).get("tokenizer_class")
        # AutoTokenizer rebuilds such a tokenizer as the one usual for the model type (Qwen2's BPE
        # for every qwen2 model), and gives no tokens at all for a vocabulary of words.
        loader = PreTrainedTokenizerFast if declared in _AS_SAVED else AutoTokenizer
        tokenizer = loader.from_pretrained(str(llm))
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"no tokenizer can be loaded from {llm} ({first}); its files are missing or damaged: "
            "copy them again"
        ) from None
    if IMAGE not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"extra_special_tokens": [IMAGE]})
    return tokenizer
