"""A talker's words are those of its grammar, it learns, and the same seed learns the same."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.toys.talker import BEGIN, Lessons, Talker, Words
from microtome.toys.transformer import Transformer

TINY = Lessons(d=16, heads=2, neurons=24, prompts=60, batch=8, steps=12, rate=1e-2)


def test_words_are_encoded_with_the_space_before_them() -> None:
    words = Words(["to Mary", "When Mary and John,"])
    ids = words.encode("When Mary")
    assert ids[0] == BEGIN and words.encode("When Mary and") == [*ids, words.ids[" and"]]
    assert words.ids[" Mary"] != words.ids.get("Mary") and len(words) == len(words.ids) + 1
    with pytest.raises(Refusal, match="the word ' Bob' is not among the 6"):
        words.encode("to Bob")


def test_it_learns_and_the_same_seed_learns_the_same() -> None:
    one, again, other = (Talker("ioi", TINY, seed) for seed in (3, 3, 4))
    losses = [list(t.learning()) for t in (one, again, other)]
    assert losses[0] == losses[1] != losses[2]
    assert losses[0][-1] < losses[0][0]
    assert one.rows.equal(other.rows)


def test_its_rows_end_with_the_answer() -> None:
    talker = Talker("ioi", TINY, 0)
    pairs = talker.pairs(5, torch.Generator().manual_seed(1))
    assert pairs.is_aligned and pairs.clean.ids.shape[1] == talker.rows.shape[1] - 1
    for row in talker.rows.tolist():
        assert row[:-1].count(row[-1]) == 1  # the name that was mentioned once


def test_prompts_of_other_lengths_and_rows_too_long_are_refused() -> None:
    with pytest.raises(Refusal, match="choose a task whose prompts are equally long"):
        Talker("pronoun", TINY, 0)
    with pytest.raises(Refusal, match="rows have 5 tokens and this network has 4 places"):
        Transformer(3, 4, d=4, heads=1, d_head=4, neurons=4)(torch.zeros(1, 5, dtype=torch.long))
