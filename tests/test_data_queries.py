"""What images are compressed for: the user's words under every template, and never an answer."""

import numpy as np
import pytest
from data_tokenizers import LLAMA, byte_tokenizer, styles
from hypothesis import given, settings
from hypothesis import strategies as st

from vtc.data.chat_templates import NAMED
from vtc.data.exchanges import exchanges, queries_of
from vtc.data.labels import IGNORE, TurnEncoder
from vtc.data.queries import NO_QUESTION, SCOPES, QueryTokens, padded, question, words
from vtc.errors import InputError

TOKENIZERS = {
    **styles(),
    **{
        name: byte_tokenizer(
            template, ["<|im_start|>", "<|im_end|>", "<s>", "</s>"], bos_token="<s>",
            eos_token="</s>", pad_token="</s>",
        )
        for name, template in NAMED.items()
    },
}  # fmt: skip
# Answers are of letters that no question has, and questions of words that templates look for.
QUESTIONS = st.lists(
    st.sampled_from(["USER", "ASSISTANT:", "\n", "what ?", "<|user|>", "[/INST]", "image"]),
    max_size=4,
).map(" ".join)
ANSWERS = st.text("QXZ", min_size=1, max_size=6)
PLACES = st.sampled_from(["{0}", "<image>\n{0}", "{0}\n<image>", "<image>\n{0}\n<image>"])


@st.composite
def conversations(draw) -> list[dict[str, str]]:
    turns = [{"role": "system", "text": "be brief"}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        text = draw(PLACES).format(draw(QUESTIONS)).strip() or "?"
        turns.append({"role": "user", "text": text})
        turns.append({"role": "assistant", "text": draw(ANSWERS)})
    return turns


@settings(max_examples=60)
@given(turns=conversations(), data=st.data())
def test_a_query_is_the_users_words_and_never_an_answer(turns: list, data: st.DataObject):
    """Under any template, turns and scope; all answers are learnt, each behind its own prompt."""
    name = data.draw(st.sampled_from(sorted(TOKENIZERS)))
    scope = data.draw(st.sampled_from(SCOPES))
    independent = data.draw(st.booleans())
    tokenizer = TOKENIZERS[name]
    encoder, queries = TurnEncoder(tokenizer, "chat"), QueryTokens(tokenizer)
    made = exchanges(encoder, queries, turns, scope, independent=independent)
    asked = [words(turn["text"]) for turn in turns if turn["role"] == "user"]
    answers = [turn["text"] for turn in turns if turn["role"] == "assistant"]
    learnt = []
    for part, (ids, labels) in zip(made.parts, made.branches, strict=True):
        text = tokenizer.decode(part.query, skip_special_tokens=True)
        assert not set(text) & set("QXZ")
        assert text == NO_QUESTION or set(text.split("\n")) <= {
            line for own in asked for line in own.split("\n")
        }
        assert text in map(_spelled(tokenizer), queries_of(turns, scope)) or independent
        assert (ids[labels != IGNORE] == labels[labels != IGNORE]).all()
        learnt.append(tokenizer.decode(labels[labels != IGNORE], skip_special_tokens=True))
    whole = "".join(learnt)
    assert [c for c in whole if c in "QXZ"] == [c for answer in answers for c in answer]
    if scope == "latest" and not independent:
        spelled = [_spelled(tokenizer)(text or NO_QUESTION) for text in asked]
        found = [tokenizer.decode(part.query, skip_special_tokens=True) for part in made.parts]
        assert found == spelled


def _spelled(tokenizer):
    return lambda text: tokenizer.decode(
        tokenizer(text, add_special_tokens=False).input_ids, skip_special_tokens=True
    )


TURNS = [
    {"role": "user", "text": "what is it ?"},
    {"role": "assistant", "text": "X"},
    {"role": "user", "text": "<image>\nand this ?\n<image>"},
    {"role": "assistant", "text": "Q"},
    {"role": "user", "text": "why ?"},
]


@pytest.mark.parametrize(
    ("scope", "end", "expected"),
    [
        ("latest", 1, "what is it ?"),
        ("latest", 5, "why ?"),
        ("first", 5, "and this ?"),
        ("first", 1, "what is it ?"),
        ("all", 5, "what is it ?\nand this ?\nwhy ?"),
    ],
)
def test_scopes(scope, end: int, expected: str):
    assert question(TURNS[:end], scope) == expected


def test_an_image_without_words_is_an_image():
    for scope in SCOPES:
        assert question([{"role": "user", "text": "<image>\n<image>"}], scope) == "image"


def test_the_begin_token_stands_first_and_equal_texts_are_one():
    tokenizer = byte_tokenizer(
        LLAMA, ["<s>", "</s>"], bos=True, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    queries = QueryTokens(tokenizer)
    queries.learn(["ab", "ab", "abc"])
    assert queries.ids("ab") is queries.ids("ab")
    ids, mask = padded([queries.ids("ab"), queries.ids("abc")], 7)
    assert ids[:, 0].tolist() == [tokenizer.bos_token_id] * 2
    assert ids[0, -1] == 7
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert np.array_equal(ids[1, 1:], [*ids[0, 1:3], ids[1, 3]])
    with pytest.raises(InputError, match="has no tokens"):
        queries.ids("")
