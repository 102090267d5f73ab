"""Small real tokenizers in the styles of the LLM families, for label tests."""

from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ 'USER: ' + m['content'] "
    "+ ' ASSISTANT:' }}{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ m['content'] + ' ' }}{% endif %}{% endfor %}"
)
THINKING = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def byte_tokenizer(
    template: str | None, specials: list[str], *, bos: bool = False, **named: str
) -> PreTrainedTokenizerFast:
    """A byte-level BPE without merges: every text has tokens, and decodes to itself."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(name, special=True) for name in [*specials, "<image>"]])
    if bos:
        start = named["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, core.token_to_id(start))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **named)
    tokenizer.chat_template = template
    return tokenizer


def styles() -> dict[str, PreTrainedTokenizerFast]:
    """Tokenizers by style: with and without BOS, pad = eos or not, end token = eos or not."""
    chatml = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    return {
        "chatml, pad is not eos": byte_tokenizer(
            CHATML, chatml, eos_token="<|im_end|>", pad_token="<|endoftext|>"
        ),
        "chatml, end token is not eos, pad is eos": byte_tokenizer(
            CHATML, chatml, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
        ),
        "llama with BOS, pad is eos": byte_tokenizer(
            LLAMA, ["<s>", "</s>"], bos=True, bos_token="<s>", eos_token="</s>", pad_token="</s>"
        ),
        "thinking": byte_tokenizer(
            THINKING, chatml, eos_token="<|im_end|>", pad_token="<|endoftext|>"
        ),
        "no end token": byte_tokenizer(
            NO_END, ["<|endoftext|>"], eos_token="<|endoftext|>", pad_token="<|endoftext|>"
        ),
    }
