"""Exactly the assistant's tokens and its end token are supervised, whatever the template."""

import numpy as np
import pytest
from data_tokenizers import byte_tokenizer, styles
from hypothesis import given, settings
from hypothesis import strategies as st

from vtc.data.labels import IGNORE, TurnEncoder, encode_turns
from vtc.data.templates import ConversationTemplate
from vtc.errors import InputError

STYLES = styles()
END = {
    "chatml, pad is not eos": "<|im_end|>",
    "chatml, end token is not eos, pad is eos": "<|im_end|>",
    "llama with BOS, pad is eos": "</s>",
    "thinking": "<|im_end|>",
    "no end token": "<|endoftext|>",
}
texts = (
    st.text(
        # No "<": a text that spells a special token is one.
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Co"], exclude_characters="<"),
        min_size=1,
        max_size=20,
    )
    .map(str.strip)
    .filter(bool)
)
talks = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


def conversation(pairs, system=None, image=True):
    turns = [{"role": "system", "text": system}] if system else []
    for number, (question, answer) in enumerate(pairs):
        mark = "<image>\n" if image and number == 0 else ""
        turns.append({"role": "user", "text": mark + question})
        turns.append({"role": "assistant", "text": answer})
    return turns


def supervised_text(tokenizer, encoded):
    runs, current = [], []
    for label in [*encoded.labels.tolist(), IGNORE]:
        if label != IGNORE:
            current.append(label)
        elif current:
            runs.append(tokenizer.decode(current, clean_up_tokenization_spaces=False))
            current = []
    return runs


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=25, deadline=None)
@given(pairs=talks, system=st.none() | texts, n_visual=st.integers(1, 9))
def test_exactly_answers_and_end_tokens_are_supervised(style, pairs, system, n_visual):
    tokenizer = STYLES[style]
    encoded = encode_turns(conversation(pairs, system), tokenizer, n_visual=n_visual)
    runs = supervised_text(tokenizer, encoded)
    assert [run.lstrip(" ") for run in runs] == [a + END[style] for _, a in pairs]
    where = encoded.labels != IGNORE
    assert (encoded.labels[where] == encoded.input_ids[where]).all()
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert (encoded.input_ids == image).sum() == n_visual
    assert (encoded.labels != image).all()


@pytest.mark.parametrize("style", STYLES)
@given(pairs=talks)
@settings(max_examples=15, deadline=None)
def test_prompt_of_evaluation_is_the_start_of_training(style, pairs):
    tokenizer = STYLES[style]
    turns = conversation(pairs)
    encoded = encode_turns(turns, tokenizer)
    text = ConversationTemplate(tokenizer).prompt(turns[:-1])
    prompt = tokenizer(text, add_special_tokens=False).input_ids
    assert encoded.input_ids[: len(prompt)].tolist() == prompt
    last_answer = encoded.labels[len(prompt) :]
    assert (last_answer != IGNORE).all()
    assert len(last_answer)


def test_prompt_equals_the_chat_templates_own():
    tokenizer = STYLES["chatml, pad is not eos"]
    turns = [{"role": "user", "content": "<image>\nwhat?"}]
    own = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ours = ConversationTemplate(tokenizer).prompt([{"role": "user", "text": "<image>\nwhat?"}])
    assert ours == own


def test_plain_template_keeps_image_caption_newline_only():
    tokenizer = STYLES["llama with BOS, pad is eos"]
    turns = conversation([("Describe the image.", "a red dog")])
    encoded = encode_turns(turns, tokenizer, "plain", n_visual=2)
    text = tokenizer.decode(encoded.input_ids)
    assert text == "<s><image><image>a red dog\n"
    assert supervised_text(tokenizer, encoded) == ["a red dog\n"]


def test_plain_template_ends_with_eos_where_newline_is_unknown():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<unk>": 0, "dog": 1, "</s>": 2}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    encoded = encode_turns(conversation([("what?", "dog")]), tokenizer, "plain", n_visual=1)
    assert encoded.input_ids.tolist() == [3, 1, 2]
    assert encoded.labels.tolist() == [IGNORE, 1, 2]


def test_batch_tokenisation_equals_one_by_one():
    tokenizer = STYLES["llama with BOS, pad is eos"]
    turns = conversation([("a b", "c"), ("d", "e f")])
    encoder = TurnEncoder(tokenizer)
    encoder.learn([turns])
    for one, other in zip(encoder.tokens(turns), encode_turns(turns, tokenizer), strict=False):
        np.testing.assert_array_equal(one, other)


def test_tokenizer_without_template_or_image_token_is_refused():
    bare = byte_tokenizer(None, ["</s>"], eos_token="</s>")
    with pytest.raises(InputError, match="no chat template"):
        TurnEncoder(bare)
    TurnEncoder(bare, "plain")


def test_template_that_drops_turns_is_refused():
    broken = byte_tokenizer("{{ messages[0]['content'] }}", ["</s>"], eos_token="</s>")
    with pytest.raises(InputError, match="does not keep the turns"):
        encode_turns(conversation([("q", "a")]), broken)


def test_template_that_raises_is_named():
    picky = byte_tokenizer("{{ raise_exception('no system') }}", ["</s>"], eos_token="</s>")
    with pytest.raises(InputError, match="no system"):
        encode_turns(conversation([("q", "a")]), picky)
