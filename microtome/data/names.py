"""Names that Python has, and names that it could have: the second made of halves of the first.

An invented name is the beginning of one real name and the end of another of its kind, and none of Python's own. Where a
counter of tokens is given, it has as many tokens as the name it stands for: length does not tell which is known.
"""

import builtins
import keyword
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from microtome.core.errors import Refusal

TRIES = 400  # pairs of halves tried for each name
SHORTEST = 4  # letters
METHODS_OF = (str, bytes, list, dict, set, int, float)


@dataclass(frozen=True)
class Kind:
    """Names that stand in one place of a line; `line` has the place for the name at its end."""

    name: str
    line: str
    real: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A real name and an invented one, each in its line."""

    kind: str
    known: str
    unknown: str


def kinds() -> tuple[Kind, ...]:
    """Modules, exceptions, methods and functions of the Python at hand."""
    public = [name for name in dir(builtins) if not name.startswith("_")]
    errors = [name for name in public if isinstance(getattr(builtins, name), type) and name[0].isupper()]
    methods = {name for owner in METHODS_OF for name in dir(owner)}
    found = (
        Kind("module", "import {}", named(sys.stdlib_module_names)),
        Kind("exception", "    except {}", named(errors)),
        Kind("method", "    value = item.{}", named(methods)),
        Kind("function", "    return {}", named(name for name in public if name[0].islower())),
    )
    return tuple(sorted(found, key=lambda kind: kind.name))


def named(names: Iterable[str]) -> tuple[str, ...]:
    """The public ones that are long enough to be halved, in order."""
    return tuple(sorted({n for n in names if len(n) >= SHORTEST and not n.startswith("_")}))


def invented(kind: Kind, taken: frozenset[str], seed: int, tokens: Callable[[str], int] = len) -> Iterator[Pair]:
    """A pair for every real name for which an invented one of as many tokens was found. No name is invented twice."""
    generator, given = random.Random(f"{seed} {kind.name}"), set(taken)
    for name in kind.real:
        known = kind.line.format(name)
        for _ in range(TRIES):
            word = joined(generator.choice(kind.real), generator.choice(kind.real))
            unknown = kind.line.format(word)
            if word not in given and tokens(unknown) == tokens(known):
                given.add(word)
                yield Pair(kind.name, known, unknown)
                break


def joined(one: str, other: str) -> str:
    """The first half of one name and the second of the other."""
    return one[: (len(one) + 1) // 2] + other[len(other) // 2 :]


def pairs(seed: int = 0, tokens: Callable[[str], int] = len, chosen: Sequence[Kind] | None = None) -> list[Pair]:
    """Pairs of all kinds. Raises Refusal where a kind has none."""
    chosen = kinds() if chosen is None else tuple(chosen)
    taken = frozenset(name for kind in (*kinds(), *chosen) for name in kind.real) | frozenset(keyword.kwlist)
    found = [list(invented(kind, taken, seed, tokens)) for kind in chosen]
    if empty := [kind.name for kind, made in zip(chosen, found, strict=True) if not made]:
        raise Refusal(f"no {empty[0]} could be invented out of {SHORTEST} letters or more; give a kind with more names")
    return [pair for made in found for pair in made]
