"""How a conversation becomes text: the tokenizer's chat template, or LLaVA's `plain`.

The template is rendered once for each pattern of roles, with a marker in place of every turn's
text; what stands between the markers is the scaffold. So label masks never depend on finding
one string inside another, nor on the length of a re-tokenised piece (the "tokenization
mismatch" of LLaVA's own code: haotian-liu/LLaVA#1166).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vtc.data.conversations import IMAGE
from vtc.errors import InputError

Turn = dict[str, str]
TemplateName = Literal["chat", "plain"]


@dataclass(frozen=True)
class Span:
    """A piece of text that is tokenised by itself; `supervised` pieces are what is learnt."""

    text: str
    supervised: bool


@dataclass(frozen=True)
class _Slot:
    """What stands around an assistant's text: what it is given, and what it must write itself."""

    lead: str
    end: str
    tail: str


@dataclass(frozen=True)
class _Scaffold:
    """A template's fixed text for one pattern of roles: before each turn, and around answers."""

    before: tuple[str, ...]
    slots: dict[int, _Slot]


class ConversationTemplate:
    """Turns a conversation into spans of text, each supervised or not.

    `chat` is the tokenizer's own chat template; `plain` is LLaVA's stage 1: image, caption, and a
    newline (the end token where the tokenizer knows no newline), the instruction thrown away.
    """

    def __init__(self, tokenizer: Any, name: TemplateName = "chat"):
        self.tokenizer = tokenizer
        self.name = name
        self._scaffolds: dict[tuple[str, ...], _Scaffold] = {}
        if name == "chat" and not getattr(tokenizer, "chat_template", None):
            raise InputError(
                f"tokenizer {tokenizer.name_or_path} has no chat template; give one with "
                "--chat-template, such as vicuna, or use --template plain"
            )

    def spans(self, turns: Sequence[Turn]) -> list[Span]:
        """The conversation as spans, unsupervised and supervised in turn; the last is an answer.

        What a template puts after the last end token trains nothing and is left out.
        """
        if self.name == "plain":
            return self._plain_spans(turns)
        scaffold = self._scaffold(tuple(turn["role"] for turn in turns))
        spans: list[Span] = []
        given = ""
        for number, turn in enumerate(turns):
            given += scaffold.before[number]
            slot = scaffold.slots.get(number)
            if slot is None:
                given += turn["text"]
                continue
            spans.append(Span(given, False))
            spans.append(Span(slot.lead + turn["text"] + slot.end, True))
            given = slot.tail
        return spans

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The text a model is given to answer the last turn, a user's.

        Token for token what `spans` puts before that answer, so that training and evaluation
        see the same prompt. Tokenise it without special tokens: the template has its own.
        """
        spans = self.spans([*turns, {"role": "assistant", "text": "?"}])
        return "".join(span.text for span in spans[:-1])

    def _plain_spans(self, turns: Sequence[Turn]) -> list[Span]:
        marks = sum(turn["text"].count(IMAGE) for turn in turns if turn["role"] == "user")
        captions = [turn["text"] for turn in turns if turn["role"] == "assistant"]
        start = self.tokenizer.bos_token if adds_bos(self.tokenizer) else ""
        return [
            Span(start + IMAGE * marks, False),
            Span(" ".join(captions) + self._plain_end(), True),
        ]

    def _plain_end(self) -> str:
        newline = self.tokenizer("\n", add_special_tokens=False).input_ids
        known = newline and self.tokenizer.unk_token_id not in newline
        return "\n" if known else (self.tokenizer.eos_token or "")

    def _scaffold(self, roles: tuple[str, ...]) -> _Scaffold:
        found = self._scaffolds.get(roles)
        if found is None:
            found = self._scaffolds[roles] = self._render_scaffold(roles)
        return found

    def _render_scaffold(self, roles: tuple[str, ...]) -> _Scaffold:
        marks = [f"\ue000{number}\ue001" for number in range(len(roles))]
        pieces = _split_at(self._render(roles, marks, False), marks)
        if pieces is None:
            raise InputError(
                f"the chat template of {self.tokenizer.name_or_path} does not keep the turns "
                f"({', '.join(roles)}); use another template, or --template plain"
            )
        before = list(pieces[:-1])
        slots = {}
        for number, role in enumerate(roles):
            if role != "assistant":
                continue
            given = self._generation_prompt(roles[:number], marks[:number])
            lead = ""
            if before[number].startswith(given):
                before[number], lead = given, before[number][len(given) :]
            end, tail = self._split_end(pieces[number + 1])
            slots[number] = _Slot(lead, end, tail)
            if number + 1 < len(roles):
                # The tail is already told by the slot.
                before[number + 1] = ""
        return _Scaffold(tuple(before), slots)

    def _generation_prompt(self, roles: tuple[str, ...], marks: list[str]) -> str:
        """What the template puts after the last turn when a model is to answer."""
        text = self._render(roles, marks, True)
        return text[text.rindex(marks[-1]) + len(marks[-1]) :] if marks else text

    def _split_end(self, text: str) -> tuple[str, str]:
        """The end token that follows an answer, and the rest, which is nobody's answer.

        A template without an end token gets the tokenizer's, or nothing would learn to stop.
        """
        specials = sorted(special_tokens(self.tokenizer), key=len, reverse=True)
        stripped = text.lstrip()
        for special in specials:
            if stripped.startswith(special):
                cut = len(text) - len(stripped) + len(special)
                return text[:cut], text[cut:]
        return self.tokenizer.eos_token or "", text

    def _render(self, roles: tuple[str, ...], texts: list[str], prompt: bool) -> str:
        turns = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]
        try:
            # enable_thinking is read by templates of reasoning models and ignored by all others.
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=prompt, enable_thinking=False
            )
        except Exception as error:
            # Templates are programs of their own and may raise anything; jinja's errors share no
            # useful base.
            raise InputError(
                f"the chat template of {self.tokenizer.name_or_path} refuses the turns "
                f"({', '.join(roles)}): {error}"
            ) from None
        return str(text)


def special_tokens(tokenizer: Any) -> set[str]:
    """The tokenizer's special tokens as text: named ones and added ones marked special."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer itself starts every text with a begin token, as Llama's do."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a").input_ids[:1] == [bos]


def _split_at(text: str, marks: list[str]) -> list[str] | None:
    """The pieces of `text` around `marks`; None unless each occurs once, in order."""
    pieces = []
    for mark in marks:
        if text.count(mark) != 1:
            return None
        head, text = text.split(mark)
        pieces.append(head)
    return [*pieces, text]
