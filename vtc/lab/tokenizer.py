"""The family's tokenizer: one word, one token; a chat template of the fewest tokens."""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from vtc.lab import words

# A question is followed by <answer>, an answer by <eos>: nothing else stands between them, so
# that questions that share an image read alike whether asked first or last.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] + ' <eos>' }}"
    "{% else %}{{ message['content'] + ' <answer> ' }}{% endif %}"
    "{% endfor %}"
)


def build() -> PreTrainedTokenizerFast:
    """The tokenizer of words.WORDS; a word's id is its position there."""
    core = Tokenizer(WordLevel(dict(words.ID), unk_token=words.PAD))
    core.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=words.PAD,
        eos_token=words.END,
        additional_special_tokens=[words.ANSWER, words.IMAGE],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
