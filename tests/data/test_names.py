"""Invented names are none of Python's, are made of halves of its own, and have as many tokens as those they stand for."""

import builtins
import sys

import pytest

from microtome.core.errors import Refusal
from microtome.data.names import Kind, kinds, pairs


def test_no_invented_name_is_real_and_none_is_invented_twice() -> None:
    found = pairs()
    unknown = [pair.unknown.split(".")[-1].split()[-1] for pair in found]
    assert not set(unknown) & (set(sys.stdlib_module_names) | set(dir(builtins)) | set(dir(str)))
    assert len(set(unknown)) == len(unknown)


def test_lengths_are_matched_by_the_counter_that_is_given() -> None:
    def counter(line: str) -> int:
        return len(line) // 3

    assert all(counter(pair.known) == counter(pair.unknown) for pair in pairs(tokens=counter))


def test_every_kind_has_names_and_the_seed_decides() -> None:
    assert {kind.name for kind in kinds()} == {"module", "exception", "method", "function"}
    assert pairs(3) == pairs(3) != pairs(4)
    assert all(sum(pair.kind == kind.name for pair in pairs()) >= 20 for kind in kinds())


def test_a_kind_without_names_to_halve_is_refused() -> None:
    with pytest.raises(Refusal, match="no thing could be invented"):
        pairs(chosen=[Kind("thing", "{}", ("only",))])
