"""Questions packed behind one image give the logits of each question asked alone."""

import numpy as np
import pytest
import torch
from data_tokenizers import styles
from hypothesis import given, settings
from hypothesis import strategies as st

from vtc.data.collate import Collator, block_mask, collate
from vtc.data.dataset import tokenise
from vtc.data.labels import IGNORE, Encoded, TurnEncoder, encode_turns
from vtc.data.packing import pack_questions, question_pairs
from vtc.errors import InputError

STYLES = styles()
QUESTIONS = [("how many dogs", "two"), ("how many", "five cats"), ("who", "it is nobody at all")]


def sample(pairs=QUESTIONS, name="s", image="0.png", system=None):
    turns = [{"role": "system", "text": system}] if system else []
    for number, (question, answer) in enumerate(pairs):
        text = ("<image>\n" if number == 0 and image else "") + question
        turns += [{"role": "user", "text": text}, {"role": "assistant", "text": answer}]
    images = [image] if image else []
    return {"sample_id": name, "images": images, "conversations": turns, "regions": None}


def tiny_llm(kind, vocabulary, attention):
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    shape = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": vocabulary,
        "attn_implementation": attention, "initializer_range": 0.3,
    }  # fmt: skip
    torch.manual_seed(0)
    if kind == "qwen":
        return Qwen2ForCausalLM(Qwen2Config(**shape)).eval()
    return LlamaForCausalLM(LlamaConfig(**shape)).eval()


@pytest.mark.parametrize("kind", ["qwen", "llama"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("style", ["chatml, pad is not eos", "llama with BOS, pad is eos"])
def test_packed_logits_equal_those_of_the_question_alone(kind, attention, style):
    tokenizer = STYLES[style]
    llm = tiny_llm(kind, len(tokenizer), attention)
    data = tokenise(
        [sample(system="be kind"), sample(QUESTIONS[:2])], TurnEncoder(tokenizer), "independent"
    )
    batch = Collator(data, 4, tokenizer.pad_token_id)([0, 1])
    keep, targets = batch.pop("logits_to_keep"), batch.pop("labels")
    batch.pop("shift_labels")
    with torch.no_grad():
        packed = llm(**batch).logits[keep]
        alone, wanted = [], []
        for one in (sample(system="be kind"), sample(QUESTIONS[:2])):
            for pair in question_pairs(one["conversations"]):
                row = collate([encode_turns(pair, tokenizer, n_visual=4)], 0)
                assert "attention_mask" not in row
                logits = llm(row["input_ids"]).logits
                alone.append(logits[row["logits_to_keep"]])
                wanted.append(row["labels"])
    assert torch.equal(targets, torch.cat(wanted))
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=0)


def test_right_padding_needs_no_mask():
    tokenizer = STYLES["chatml, pad is not eos"]
    llm = tiny_llm("qwen", len(tokenizer), "sdpa")
    data = tokenise([sample(), sample(QUESTIONS[:1])], TurnEncoder(tokenizer))
    batch = Collator(data, 4, tokenizer.pad_token_id)([0, 1])
    assert "attention_mask" not in batch
    with torch.no_grad():
        unmasked = llm(batch["input_ids"]).logits
        for number in (0, 1):
            length = len(data.rows[number].tokens.encode(4).input_ids)
            row = llm(batch["input_ids"][number : number + 1, :length]).logits
            torch.testing.assert_close(unmasked[number, :length], row[0], atol=1e-5, rtol=0)


words = st.text("abc ", min_size=1, max_size=6).map(str.strip).filter(bool)


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.lists(st.tuples(words, words), min_size=1, max_size=5),
    n_visual=st.integers(1, 5),
    data=st.data(),
)
def test_every_branch_reads_as_its_question_alone(pairs, n_visual, data):
    tokenizer = STYLES["chatml, pad is not eos"]
    turns = sample(pairs)["conversations"]
    row = pack_questions(TurnEncoder(tokenizer), question_pairs(turns))
    chosen = data.draw(st.permutations(range(len(pairs))))
    encoded = row.encode(n_visual, chosen)
    for block, index in enumerate(chosen, start=1):
        seen = (encoded.turn_ids == 0) | (encoded.turn_ids == block)
        alone = encode_turns(question_pairs(turns)[index], tokenizer, n_visual=n_visual)
        np.testing.assert_array_equal(encoded.input_ids[seen], alone.input_ids)
        np.testing.assert_array_equal(encoded.labels[seen], alone.labels)
        np.testing.assert_array_equal(encoded.position_ids[seen], np.arange(seen.sum()))
    # The token that predicts an answer's first stands in its own branch.
    first = np.flatnonzero((encoded.labels[1:] != IGNORE) & (encoded.labels[:-1] == IGNORE))
    assert (encoded.turn_ids[first] == encoded.turn_ids[first + 1]).all()


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=3))
def test_block_mask_shows_the_shared_start_and_the_own_block_only(rows):
    width = max(map(len, rows))
    ids = torch.tensor([row + [-1] * (width - len(row)) for row in rows])
    mask = block_mask(ids)
    assert mask.shape == (len(rows), 1, width, width)
    for b in range(len(rows)):
        for q in range(width):
            for k in range(width):
                seen = k <= q and (ids[b, k] == 0 or ids[b, k] == ids[b, q])
                assert (mask[b, 0, q, k] == 0) == seen
            assert (mask[b, 0, q] == 0).any()


def test_questions_are_drawn_anew_and_repeat_with_the_seed():
    tokenizer = STYLES["chatml, pad is not eos"]
    data = tokenise([sample()], TurnEncoder(tokenizer), "independent")

    def draws(seed):
        collator = Collator(data, 1, 0, max_questions=1, seed=seed)
        drawn = []
        for epoch in range(12):
            collator.set_epoch(epoch)
            drawn.append(collator([0])["labels"].tolist())
            assert collator([0])["labels"].tolist() == drawn[-1]
        return drawn

    assert draws(1) == draws(1)
    assert len({tuple(labels) for labels in draws(1)}) == 3


def test_long_dialogues_lose_their_end_but_never_an_image():
    tokenizer = STYLES["chatml, pad is not eos"]
    data = tokenise([sample()], TurnEncoder(tokenizer))
    whole = data.rows[0].tokens.encode(4)
    first_answer = int(np.argmax(whole.labels != IGNORE))
    batch = Collator(data, 4, 0, max_length=first_answer + 2)([0])
    assert batch["input_ids"].shape == (1, first_answer + 2)
    assert len(batch["labels"]) == 2
    with pytest.raises(InputError, match="sample s: its images and answer pass --max-length 9"):
        Collator(data, 20, 0, max_length=9)([0])
    alone = tokenise([sample()], TurnEncoder(tokenizer), "independent")
    with pytest.raises(InputError, match="sample s"):
        Collator(alone, 20, 0, max_length=30)([0])


def test_images_reach_the_source_in_order_of_appearance():
    tokenizer = STYLES["chatml, pad is not eos"]
    rows = [sample(name="a", image="1.png"), sample(name="b", image=None), sample(name="c")]
    data = tokenise(rows, TurnEncoder(tokenizer))
    asked = []

    def images(paths):
        asked.extend(paths)
        return {"vision_levels": torch.zeros(len(paths), 1, 1, 1)}

    batch = Collator(data, 2, 0, images)([2, 1, 0])
    assert asked == ["0.png", "1.png"]
    assert batch["vision_levels"].shape[0] == 2


def test_collate_counts_every_label_once():
    row = Encoded(*(np.array(x) for x in ([5, 6, 7], [IGNORE, 6, 7], [0, 0, 0], [0, 1, 2])))
    batch = collate([row, row], 9)
    assert batch["logits_to_keep"].tolist() == [[True, True, False]] * 2
    assert batch["shift_labels"].tolist() == [6, 7, 6, 7]
