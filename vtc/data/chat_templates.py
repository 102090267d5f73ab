"""Chat templates by name, for tokenizers that bring none.

Base models (Vicuna's checkpoints, Qwen without -Chat, Phi) often come without one. `vicuna` works
with every tokenizer that has an end token; the others need the special tokens they are made of.
"""

from pathlib import Path
from typing import Any

from vtc.errors import InputError

_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

NAMED = {
    # LLaVA-1.5's `v1` (conversation.py): its system sentence unless the conversation has one.
    "vicuna": (
        "{{ bos_token or '' }}"
        "{% if messages[0]['role'] != 'system' %}" + _VICUNA_SYSTEM + "{{ ' ' }}{% endif %}"
        "{% for m in messages %}"
        "{% if m['role'] == 'system' %}{{ m['content'] + ' ' }}"
        "{% elif m['role'] == 'user' %}{{ 'USER: ' + m['content'] + ' ' }}"
        "{% else %}{{ 'ASSISTANT: ' + m['content'] + eos_token }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    ),
    # Qwen's and many others'.
    "chatml": (
        "{% for m in messages %}"
        "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    # HuggingFaceH4/zephyr's; its role marks are plain text.
    "zephyr": (
        "{% for m in messages %}"
        "{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    ),
    # Llama-2-chat's, the system turn inside the first user's.
    "llama2": (
        "{% for m in messages %}"
        "{% if m['role'] == 'system' %}"
        "{{ (bos_token or '') + '[INST] <<SYS>>\\n' + m['content'] + '\\n<</SYS>>\\n\\n' }}"
        "{% elif m['role'] == 'user' %}"
        "{% if loop.first or messages[loop.index0 - 1]['role'] != 'system' %}"
        "{{ (bos_token or '') + '[INST] ' }}{% endif %}"
        "{{ m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}"
        "{% endfor %}"
    ),
}
_NEEDED = {"chatml": ("<|im_start|>", "<|im_end|>")}


def template_text(name: str) -> str:
    """The Jinja text of a chat template: one of NAMED, or a file's.

    Raises InputError for a name that is neither.
    """
    if name in NAMED:
        return NAMED[name]
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"--chat-template {name} is no file of text, nor one of {', '.join(NAMED)}"
        ) from None


def give_template(tokenizer: Any, name: str | None) -> None:
    """Set a tokenizer's chat template; None leaves it as it is.

    Raises InputError if the tokenizer lacks special tokens that the template is made of.
    """
    if name is None:
        return
    text = template_text(name)
    vocabulary = tokenizer.get_vocab()
    for token in _NEEDED.get(name, ()):
        if token not in vocabulary:
            raise InputError(
                f"--chat-template {name}: the tokenizer has no token {token}; vicuna works with any"
            )
    if "eos_token" in text and tokenizer.eos_token is None:
        raise InputError(f"--chat-template {name} needs an end token, which the tokenizer lacks")
    tokenizer.chat_template = text
