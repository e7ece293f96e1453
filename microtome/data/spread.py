"""Windows in an order in which every stretch of them holds something of nearly every document.

Activations are hundreds of times as large as the text they come from, so the text is what can be mixed as a whole. A
buffer of rows holds what some thousand windows gave, and no batch has more documents than those came from: in the
text's own order a few; in a random order fewer than a shuffle of all rows would show; with the windows of each document
at even distances, as many.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeVar

from microtome.core.errors import Refusal
from microtome.data.windows import Window

T = TypeVar("T")


def spread(found: Iterable[Window | T], room: int, seed: str) -> Iterator[Window | T]:
    """The same windows, put in order `room` tokens at a time. The order depends on the seed alone.

    `room` is what is held in memory, eight bytes a token; 0 leaves the text's own order. What is no window (a batch
    that somebody made) stays where it is. Raises Refusal for a room below 0.
    """
    if room < 0:
        raise Refusal(f"spread is {room} tokens; give how many tokens of text to put in order at a time, or 0 for none")
    chance, group, tokens = random.Random(seed), list[Window](), 0
    for item in found:
        if isinstance(item, Window):
            group.append(item)
            tokens += len(item.tokens)
        if tokens >= room or not isinstance(item, Window):
            yield from evenly(group, chance)
            group, tokens = [], 0
        if not isinstance(item, Window):
            yield item
    yield from evenly(group, chance)


def evenly(group: list[Window], chance: random.Random) -> list[Window]:
    """The windows of each document in random order, at even distances from one another, from a random one on."""
    each: dict[str, list[Window]] = defaultdict(list)
    for window in group:
        each[window.document].append(window)
    placed: list[tuple[float, Window]] = []
    for mine in each.values():
        chance.shuffle(mine)
        begin = chance.random()
        placed += [((begin + number) / len(mine), window) for number, window in enumerate(mine)]
    return [window for _, window in sorted(placed, key=lambda one: one[0])]
