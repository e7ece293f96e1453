"""A language model in this process: whatever continues rows of tokens and has a tokenizer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from microtome.core.errors import Refusal
from microtome.language.ask import Answer, NoAnswer, Prompt

Continue = Callable[[list[int], int, float], list[int]]  # ids, at most so many new ones, temperature -> the new ones


@runtime_checkable
class Written(Protocol):
    """What is asked of a Hugging Face tokenizer."""

    def __call__(self, text: str, **settings: bool) -> dict: ...

    def decode(self, token_ids: Sequence[int], **settings: bool) -> str:
        """The text of these tokens."""
        ...


@dataclass(frozen=True)
class InProcess:
    """A model by the function that continues its tokens. One that was taught to chat is asked by its own template.

    `context` is the most tokens it takes, prompt and answer together; None where there is no bound.
    """

    name: str
    tokenizer: Written
    continues: Continue = field(repr=False)
    context: int | None = None

    def say(self, prompt: Prompt) -> Answer:
        ids = self._ids(prompt)
        if self.context is not None and len(ids) + prompt.most > self.context:
            raise NoAnswer(
                f"{self.name} takes {self.context} tokens and this question needs {len(ids) + prompt.most}; "
                "use a model with a longer context, or fewer examples"
            )
        said = self.continues(ids, prompt.most, prompt.temperature)
        return Answer(self.tokenizer.decode(said, skip_special_tokens=True), len(ids), len(said))

    def _ids(self, prompt: Prompt) -> list[int]:
        if getattr(self.tokenizer, "chat_template", None):
            chat: Any = self.tokenizer
            said = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.text}]
            text = chat.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer(f"{prompt.system}\n\n{prompt.text}\n\nAnswer:")["input_ids"])


def refuse_without_tokenizer(name: str, tokenizer: object) -> Written:
    """The tokenizer, or a Refusal where there is none to speak with."""
    if not isinstance(tokenizer, Written):
        raise Refusal(f"{name} has no tokenizer, so it cannot be asked; give a model that has one")
    return tokenizer
