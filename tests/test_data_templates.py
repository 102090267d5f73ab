"""Label masks under the chat templates and tokenizers of the LLM families."""

from functools import cache

import numpy as np
import pytest
from data_tokenizers import byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from vtc.data.chat_templates import NAMED, give_template, template_text
from vtc.data.image_places import place
from vtc.data.labels import IGNORE, TurnEncoder
from vtc.errors import InputError

WORDS = ("what is it", "a", "two  dogs", "Read: 'x y'", "red, blue", "no", "1 2 3", "(yes)", "été")
PHI = (
    "{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def metaspace_tokenizer(scheme: str, template: str, rstrip: bool = False, **named: str):
    """A sentencepiece-like BPE over WORDS: metaspace, byte fallback, <s> </s> <unk>.

    The scheme `legacy` is that of Llama 2's own: a normalizer that puts a space before whatever
    follows a special token.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from tokenizers.pre_tokenizers import Metaspace
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.pre_tokenizer = Metaspace(prepend_scheme="always" if scheme == "legacy" else scheme)
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", "<s>", "</s>", *fallback], show_progress=False
    )
    corpus = [*WORDS, "USER: ASSISTANT: [INST] [/INST]", "<|user|> <|assistant|>"]
    core.train_from_iterator(corpus, trainer)
    if scheme == "legacy":
        spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        core.normalizer = normalizers.Sequence(spaces)
        core.pre_tokenizer = None
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    extra = [AddedToken(t, special=True, rstrip=rstrip) for t in ("<|end|>", "<|user|>")]
    core.add_special_tokens([*extra, AddedToken("<image>", special=True)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **named
    )
    tokenizer.chat_template = template
    return tokenizer


@cache
def families():
    """(tokenizer, its end of an answer, may the template have a system turn) by family."""
    chatml = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    phi = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"]
    qwen = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    llama = {"bos_token": "<s>", "eos_token": "</s>"}
    ends = ["<unk>", "<s>", "</s>"]
    return {
        "qwen": (
            byte_tokenizer(NAMED["chatml"], chatml, **qwen),
            "<|im_end|>",
        ),
        "phi": (
            byte_tokenizer(PHI, phi, eos_token="<|endoftext|>", pad_token="<|endoftext|>"),
            "<|end|>",
        ),
        "vicuna, bytes, BOS, pad is eos": (
            byte_tokenizer(NAMED["vicuna"], ends, bos=True, pad_token="</s>", **llama),
            "</s>",
        ),
        "zephyr, no BOS": (
            byte_tokenizer(NAMED["zephyr"], ["</s>"], eos_token="</s>", pad_token="</s>"),
            "</s>",
        ),
        "vicuna, metaspace always, pad is unk": (
            metaspace_tokenizer("always", NAMED["vicuna"], pad_token="<unk>"),
            "</s>",
        ),
        "vicuna, metaspace first": (
            metaspace_tokenizer("first", NAMED["vicuna"], pad_token="</s>"),
            "</s>",
        ),
        "llama 2, metaspace always": (
            metaspace_tokenizer("always", NAMED["llama2"], pad_token="<unk>"),
            "</s>",
        ),
        "vicuna, metaspace legacy": (
            metaspace_tokenizer("legacy", NAMED["vicuna"], pad_token="<unk>"),
            "</s>",
        ),
        "zephyr, metaspace legacy": (
            metaspace_tokenizer("legacy", NAMED["zephyr"], pad_token="</s>"),
            "</s>",
        ),
        "llama 2, metaspace never": (
            metaspace_tokenizer("never", NAMED["llama2"], pad_token="</s>"),
            "</s>",
        ),
        "phi, metaspace, specials swallow spaces": (
            metaspace_tokenizer("first", PHI, rstrip=True, pad_token="<unk>"),
            "<|end|>",
        ),
    }  # fmt: skip


NAMES = (
    "qwen",
    "phi",
    "vicuna, bytes, BOS, pad is eos",
    "zephyr, no BOS",
    "vicuna, metaspace always, pad is unk",
    "vicuna, metaspace first",
    "llama 2, metaspace always",
    "vicuna, metaspace legacy",
    "zephyr, metaspace legacy",
    "llama 2, metaspace never",
    "phi, metaspace, specials swallow spaces",
)
said = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
talks = st.lists(st.tuples(said, said), min_size=1, max_size=3)


def conversation(pairs, n_images, system):
    turns = [{"role": "system", "text": system}] if system else []
    for number, (question, answer) in enumerate(pairs):
        marks = "<image>\n" * n_images if number == 0 else ""
        turns.append({"role": "user", "text": marks + question})
        turns.append({"role": "assistant", "text": answer})
    return turns


def whole(tokenizer, turns):
    """Ids of the rendered chat tokenised in one go."""
    messages = [{"role": turn["role"], "content": turn["text"]} for turn in turns]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return text, tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(pairs=talks, n_images=st.integers(0, 3), system=st.none() | said)
def test_ids_are_those_of_the_whole_chat_and_answers_alone_are_supervised(
    name, pairs, n_images, system
):
    tokenizer, end = families()[name]
    turns = conversation(pairs, n_images, system)
    ids, labels = TurnEncoder(tokenizer).tokens(turns)
    _, expected = whole(tokenizer, turns)
    # What a template puts after the last end token (a newline, an end of text) is left out.
    assert ids.tolist() == expected[: len(ids)]
    tail = tokenizer.decode(expected[len(ids) :]).strip()
    assert tail in ("", tokenizer.eos_token)
    learnt = np.split(ids, np.flatnonzero(np.diff(labels != IGNORE)) + 1)[1::2]
    said = [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in learnt]
    # A space between the template's role and the answer, or before the end, is learnt along.
    assert [text.removesuffix(end).strip(" ") for text in said] == [a for _, a in pairs]
    assert all(text.endswith(end) for text in said)
    assert (labels[labels != IGNORE] == ids[labels != IGNORE]).all()
    assert (ids == tokenizer.convert_tokens_to_ids("<image>")).sum() == n_images


@pytest.mark.parametrize("position", ["after", "before"])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10)
@given(pairs=talks, n_images=st.integers(1, 2), system=st.none() | said)
def test_the_prompt_of_evaluation_is_the_start_of_training(name, position, pairs, n_images, system):
    tokenizer, _ = families()[name]
    turns = conversation(pairs, n_images, system)
    encoder = TurnEncoder(tokenizer, query_position=position)
    ids, labels = encoder.tokens(turns)
    prompt = TurnEncoder(tokenizer, query_position=position).prompt(turns[:-1])
    assert ids[: len(prompt)].tolist() == prompt.tolist()
    assert (labels[len(prompt) :] != IGNORE).all()
    assert len(prompt) < len(ids)


@pytest.mark.parametrize("name", NAMES)
@given(query=said, pair=st.tuples(said, said))
@settings(max_examples=10)
def test_a_query_before_the_image_is_one_prefix_for_all_images(name, query, pair):
    tokenizer, _ = families()[name]
    image = tokenizer.convert_tokens_to_ids("<image>")

    def until_image(text, position, answer):
        turns = [{"role": "user", "text": text}, {"role": "assistant", "text": answer}]
        ids, _ = TurnEncoder(tokenizer, query_position=position).tokens(turns)
        assert (ids == image).sum() == 1
        return ids[: int(np.argmax(ids == image))].tolist()

    # Wherever the data have the mark, and whatever is answered.
    one = until_image(f"<image>\n{query}", "before", pair[0])
    other = until_image(f"{query}\n<image>", "before", pair[1])
    assert one == other
    assert query in tokenizer.decode(one, clean_up_tokenization_spaces=False)
    assert query not in tokenizer.decode(
        until_image(f"{query} <image>", "after", pair[0])
    ).removeprefix(tokenizer.decode(until_image("<image>", "after", pair[0])))


@pytest.mark.parametrize(
    ("text", "after", "before"),
    [
        ("hi", "hi", "hi"),
        ("<image>\nhi", "<image>\nhi", "hi\n<image>"),
        ("hi <image>", "<image>\nhi", "hi\n<image>"),
        ("in <image> here", "<image>\nin here", "in here\n<image>"),
        ("<image><image>\nhi", "<image>\n<image>\nhi", "hi\n<image>\n<image>"),
        ("A: <image> B: <image>", "A: <image> B: <image>", "A: <image> B: <image>"),
        ("<image>", "<image>", "<image>"),
    ],
)
def test_images_are_placed(text, after, before):
    assert (place(text, "after"), place(text, "before")) == (after, before)


def test_vicuna_is_llavas_v1():
    tokenizer = byte_tokenizer(NAMED["vicuna"], ["</s>"], eos_token="</s>")
    turns = [("user", "<image>\nhi"), ("assistant", "ho"), ("user", "ha"), ("assistant", "he")]
    messages = [{"role": role, "content": text} for role, text in turns]
    system = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions."
    )
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        f"{system} USER: <image>\nhi ASSISTANT: ho</s>USER: ha ASSISTANT: he</s>"
    )
    asked = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert asked == f"{system} USER: <image>\nhi ASSISTANT:"


def test_chat_templates_come_by_name_or_from_a_file(tmp_path):
    bare = byte_tokenizer(None, ["</s>"], eos_token="</s>")
    give_template(bare, None)
    assert bare.chat_template is None
    give_template(bare, "vicuna")
    assert bare.chat_template == template_text("vicuna")
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    give_template(bare, str(tmp_path / "own.jinja"))
    assert bare.chat_template == "{{ messages }}"
    with pytest.raises(InputError, match=r"absent is no file of text, nor one of vicuna, chatml"):
        give_template(bare, "absent")
    with pytest.raises(InputError, match=r"no token <\|im_start\|>; vicuna works"):
        give_template(bare, "chatml")
    with pytest.raises(InputError, match="needs an end token"):
        give_template(byte_tokenizer(None, []), "zephyr")
