"""Rules in words: short sentences that a person reads, with tokens in backticks and white space made visible."""

import re
from collections.abc import Sequence

from microtome.explain.conditions import RECENT, Condition, Fact, Not, Recently, Rule, TokenIs

PLACES = ("in ", "at ", "after ", "first on", "seen ", "continuing")


def sentence(rule: Rule, vocabulary: Sequence[str]) -> str:
    """The token first, then what kind of thing it is, then what stood before, then where, then what is ruled out."""
    return ", ".join(phrase(c, vocabulary) for c in sorted(rule.conditions, key=rank))


def rank(condition: Condition) -> int:
    order = {"here": 0, "before 1": 2, "before 2": 3, "before 3": 3, "line": 5}
    match condition:
        case TokenIs(slot=slot):
            return order[slot]
        case Fact(name=name):
            return 6 if name.startswith(PLACES) else 1
        case Recently():
            return 4
    return 7


def phrase(condition: Condition, vocabulary: Sequence[str]) -> str:
    match condition:
        case TokenIs(slot=slot, tokens=tokens):
            return SLOTS[slot].format(listed([shown(vocabulary[t]) for t in tokens]))
        case Recently(token=token):
            return f"with {shown(vocabulary[token])} among the {RECENT} tokens before"
        case Fact(name=name):
            return name
        case Not(condition=denied):
            return f"not {phrase(denied, vocabulary)}"
    raise AssertionError(condition)


SLOTS = {
    "here": "{}",
    "before 1": "after {}",
    "before 2": "two after {}",
    "before 3": "three after {}",
    "line": "on a line that begins with {}",
}


def listed(words: Sequence[str]) -> str:
    """`a`, `b` or `c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}" if words else "no token"


def shown(token: str) -> str:
    """A token in backticks: ␣ for a space (with a count from three on), ↵ for a line break, ⇥ for a tab."""
    text = re.sub(" {3,}", lambda run: f"␣×{len(run.group())}", token)
    return f"`{text.replace(' ', '␣').replace(chr(10), '↵').replace(chr(9), '⇥').replace(chr(13), '␍')}`"
