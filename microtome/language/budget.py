"""How many tokens may be spent, and how many have been: a bound that nothing is asked beyond."""

from dataclasses import dataclass

from microtome.core.errors import Refusal
from microtome.language.ask import Answer, Prompt


class BudgetReached(Refusal):
    """The next question would cost more than is left. What was answered before is kept."""


@dataclass
class Budget:
    """Tokens, read and written together. Answers that were kept from before cost nothing."""

    tokens: int
    prompt_tokens: int = 0
    answer_tokens: int = 0
    requests: int = 0
    recalled: int = 0  # answers that were kept and not asked for again

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise Refusal(f"a budget of {self.tokens} tokens is none; give 0 (ask nothing new) or more")

    @property
    def spent(self) -> int:
        """All tokens so far."""
        return self.prompt_tokens + self.answer_tokens

    def refuse_beyond(self, prompt: Prompt) -> None:
        """Raises BudgetReached where the prompt (by its upper estimate) and the longest answer do not fit."""
        wanted = prompt.tokens + prompt.most
        if self.spent + wanted > self.tokens:
            raise BudgetReached(
                f"the budget of {self.tokens:,} tokens is reached: {self.spent:,} are spent and the next question may "
                f"take {wanted:,}; what was answered is kept, and the same command with a larger --budget goes on"
            )

    def charge(self, answer: Answer) -> None:
        """Count an answer that was given now."""
        self.prompt_tokens += answer.prompt_tokens
        self.answer_tokens += answer.answer_tokens
        self.requests += 1

    def recall(self) -> None:
        """Count an answer that was kept from before."""
        self.recalled += 1
