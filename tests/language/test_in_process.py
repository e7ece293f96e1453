"""A model in process is asked in its own tokens, by its chat template where it has one."""

import pytest

from microtome.core.errors import Refusal
from microtome.language.ask import NoAnswer, Prompt
from microtome.language.in_process import InProcess, refuse_without_tokenizer

PROMPT = Prompt("Be brief.", "Who?", 5, "me")


class Letters:
    """A tokenizer of single letters."""

    def __call__(self, text: str, **settings: bool) -> dict:
        return {"input_ids": [ord(letter) for letter in text]}

    def decode(self, token_ids: list[int], **settings: bool) -> str:
        return "".join(map(chr, token_ids))


class Chats(Letters):
    chat_template = "yes"

    def apply_chat_template(self, said: list[dict], tokenize: bool, add_generation_prompt: bool) -> str:
        return "|".join(f"{m['role']}:{m['content']}" for m in said) + "|"


def test_it_continues_the_prompt_and_counts_its_own_tokens() -> None:
    seen = {}

    def continues(ids: list[int], most: int, temperature: float) -> list[int]:
        seen.update(ids=ids, most=most, temperature=temperature)
        return [ord(letter) for letter in "me"]

    answer = InProcess("small", Letters(), continues).say(PROMPT)
    assert (answer.text, answer.answer_tokens, answer.prompt_tokens) == ("me", 2, len(seen["ids"]))
    assert Letters().decode(seen["ids"]) == "Be brief.\n\nWho?\n\nAnswer:" and seen["most"] == 5
    InProcess("small", Chats(), continues).say(PROMPT)
    assert Letters().decode(seen["ids"]) == "system:Be brief.|user:Who?|"


def test_a_question_that_is_too_long_is_refused() -> None:
    with pytest.raises(NoAnswer, match="small takes 12 tokens and this question needs 29"):
        InProcess("small", Letters(), lambda *asked: [], context=12).say(PROMPT)
    with pytest.raises(Refusal, match="mute has no tokenizer"):
        refuse_without_tokenizer("mute", None)
