"""Tasks on which circuits have been found, made from words: no download, and a generator decides what is drawn.

ioi           which of two names comes next        Wang et al. 2022 (arXiv 2211.00593)
greater_than  a year after another                 Hanna et al. 2023 (arXiv 2305.00586)
docstring     the next parameter of a function     Heimersheim & Janiak 2023
pronoun       he or she, by the name before        Mathwin et al. 2023
arithmetic    the sum of two numbers               Stolfo et al. 2023 (arXiv 2305.15054)
mcqa          the letter of the right choice       Wiegreffe et al. 2024 (arXiv 2407.15018)
"""

from collections.abc import Callable
from difflib import get_close_matches
from typing import TypeVar

import torch

from microtome.core.errors import Refusal
from microtome.data.pairs import Encode, Pairs, Prompt, tokenized

T = TypeVar("T")
TRIES = 50  # prompts drawn for each pair asked for, before giving up

GIRLS = ("Lily", "Mia", "Anna", "Sue", "Sara", "Jane", "Lucy", "Amy", "Mary", "Emma")
BOYS = ("Tim", "Max", "Bob", "John", "Jack", "Tom", "Ben", "Sam", "James", "Paul")
NAMES = GIRLS + BOYS
PLACES = ("store", "park", "school", "garden", "house", "office", "station", "beach")
OBJECTS = ("ball", "book", "drink", "ring", "kiss", "box", "cake", "toy")
EVENTS = ("war", "plague", "siege", "reign", "voyage", "strike", "famine", "trial", "drought", "dynasty")
STORIES = ("{name} went to the park.", "{name} had a big red ball.", "One day, {name} was playing outside.")
WORDS = (
    "load", "size", "files", "last", "page", "line", "name", "text", "path", "mode", "user", "host", "port", "code",
    "date", "type", "value", "item", "key", "list", "room", "table", "color", "order", "group", "state",
)  # fmt: skip
THINGS = ("box", "car", "cup", "door", "hat", "ball", "coat", "chair")
COLORS = ("red", "blue", "green", "black", "white", "brown", "gray", "pink")
LETTERS = "ABCD"


def ioi(draw: torch.Generator) -> Prompt:
    """The name that is mentioned once is the answer; the corrupt prompt mentions the other one twice."""
    one, other = some(NAMES, 2, draw)
    place, thing, subject = choice(PLACES, draw), choice(OBJECTS, draw), choice((one, other), draw)
    answer = other if subject == one else one
    begun = f"When {one} and {other} went to the {place},"
    return Prompt(
        f"{begun} {subject} gave a {thing} to", f"{begun} {answer} gave a {thing} to", (f" {answer}",), (f" {subject}",)
    )


def greater_than(draw: torch.Generator) -> Prompt:
    """Any later year of the century is right, any other wrong; the corrupt war began in its year 01."""
    event, century, year = choice(EVENTS, draw), number(11, 18, draw), number(2, 98, draw)
    right, wrong = (tuple(f"{y:02d}" for y in years) for years in (range(year + 1, 100), range(2, year + 1)))

    def text(year: int) -> str:
        return f"The {event} lasted from the year {century}{year:02d} to the year {century}"

    return Prompt(text(year), text(1), right, wrong)


def docstring(draw: torch.Generator) -> Prompt:
    """The third parameter follows the two that are described; in the corrupt signature it has another name."""
    function, first, second, third, other, fourth, *said = some(WORDS, 10, draw)

    def text(third: str) -> str:
        return (
            f"def {function}(self, {first}, {second}, {third}, {fourth}):\n"
            f'    """{said[0]} {said[1]}\n\n    :param {first}: {said[2]}\n    :param {second}: {said[3]}\n    :param'
        )

    return Prompt(text(third), text(other), (f" {third}",), (f" {other}",))


def pronoun(draw: torch.Generator) -> Prompt:
    """A story's second sentence begins with the pronoun of the name in its first."""
    (hers, his), story = (choice(GIRLS, draw), choice(BOYS, draw)), choice(STORIES, draw)
    girl, boy = story.format(name=hers), story.format(name=his)
    return choice((Prompt(girl, boy, (" She",), (" He",)), Prompt(boy, girl, (" He",), (" She",))), draw)


def arithmetic(draw: torch.Generator) -> Prompt:
    """A sum of one digit; the corrupt prompt adds another number."""
    a = number(1, 7, draw)
    b, other = some(tuple(range(1, 10 - a)), 2, draw)
    return Prompt(f"{a} + {b} = ", f"{a} + {other} = ", (str(a + b),), (str(a + other),))


def mcqa(draw: torch.Generator) -> Prompt:
    """A colour is said and asked for among four lettered ones; the corrupt choices have it at another letter."""
    thing, colors, (right, wrong) = choice(THINGS, draw), list(some(COLORS, 4, draw)), some(tuple(range(4)), 2, draw)
    answer = colors[right]

    def text(colors: list[str]) -> str:
        choices = "\n".join(f"{letter}. {color}" for letter, color in zip(LETTERS, colors, strict=True))
        return f"The {thing} is {answer}. What color is the {thing}?\n{choices}\nAnswer:"

    moved = list(colors)
    moved[right], moved[wrong] = colors[wrong], colors[right]
    return Prompt(text(colors), text(moved), (f" {LETTERS[right]}",), (f" {LETTERS[wrong]}",))


TASKS: dict[str, Callable[[torch.Generator], Prompt]] = {
    "arithmetic": arithmetic, "docstring": docstring, "greater_than": greater_than, "ioi": ioi, "mcqa": mcqa,
    "pronoun": pronoun,
}  # fmt: skip


def prompts(task: str, n: int, generator: torch.Generator) -> list[Prompt]:
    """So many prompts of a task, drawn with replacement."""
    make = find(task)
    return [make(generator) for _ in range(n)]


def pairs(task: str, n: int, encode: Encode, generator: torch.Generator, *, context: int | None = None) -> Pairs:
    """So many pairs of a task, of any lengths. Raises Refusal where an answer is not one token of this tokenizer."""
    return tokenized(prompts(task, n, generator), encode, context=context)


def aligned_pairs(
    task: str, n: int, encode: Encode, generator: torch.Generator, *, context: int | None = None
) -> Pairs:
    """So many pairs whose two prompts have equally many tokens, and whose answers have one; others are passed over.

    Raises Refusal where too few of those that were drawn are so, with what kept the last one out.
    """
    kept: list[Prompt] = []
    reason = "its two prompts have different lengths"
    for prompt in prompts(task, n * TRIES, generator):
        try:
            one = tokenized([prompt], encode, context=context)
        except Refusal as refused:
            reason = str(refused)
            continue
        if one.is_aligned:
            kept.append(prompt)
        if len(kept) == n:
            return tokenized(kept, encode, context=context)
    raise Refusal(
        f"{len(kept)} of {n * TRIES} {task} prompts suit this tokenizer and {n} are needed; of the last, {reason}"
    )


def find(task: str) -> Callable[[torch.Generator], Prompt]:
    """The task of this name. Raises Refusal, with a near name, where there is none."""
    if task not in TASKS:
        near = get_close_matches(task, TASKS, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise Refusal(f"no task {task!r}; {meant}there are: {', '.join(TASKS)}")
    return TASKS[task]


# ---------------------------------------------------------------- drawing


def number(first: int, last: int, draw: torch.Generator) -> int:
    """A number from `first` to `last`, both included."""
    return int(torch.randint(first, last + 1, (), generator=draw))


def choice(given: tuple[T, ...], draw: torch.Generator) -> T:
    """One of these, each as likely."""
    return given[number(0, len(given) - 1, draw)]


def some(given: tuple[T, ...], n: int, draw: torch.Generator) -> tuple[T, ...]:
    """So many different ones."""
    return tuple(given[i] for i in torch.randperm(len(given), generator=draw)[:n].tolist())
