"""Tasks made from words: each prompt decides its answer, and the same generator draws the same ones."""

import re
from zlib import crc32

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.data.tasks import TASKS, aligned_pairs, pairs, prompts


def by_pieces(text: str) -> list[int]:
    """Words, pairs of digits, single signs."""
    return [0, *(crc32(piece.encode()) for piece in re.findall(r" ?[A-Za-z_]+|\d\d|\d|\n|.", text))]


@pytest.mark.parametrize("task", TASKS)
def test_clean_and_corrupt_differ_and_so_do_their_answers(task: str, generator: torch.Generator) -> None:
    for prompt in prompts(task, 40, generator):
        assert prompt.clean != prompt.corrupt
        assert prompt.right
        assert not set(prompt.right) & set(prompt.wrong)


@pytest.mark.parametrize("task", TASKS)
def test_the_generator_decides_what_is_drawn(task: str) -> None:
    first, again, other = (prompts(task, 8, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("task", TASKS)
def test_pairs_of_every_task_can_be_aligned(task: str, generator: torch.Generator) -> None:
    found = aligned_pairs(task, 4, by_pieces, generator)
    assert len(found) == 4
    assert found.is_aligned
    assert found.differing().any(1).all()


def test_the_name_said_once_is_the_answer(generator: torch.Generator) -> None:
    for prompt in prompts("ioi", 20, generator):
        assert prompt.clean.count(prompt.right[0].strip()) == 1
        assert prompt.clean.count(prompt.wrong[0].strip()) == 2
        assert prompt.corrupt.count(prompt.wrong[0].strip()) == 1


def test_later_years_are_right(generator: torch.Generator) -> None:
    for prompt in prompts("greater_than", 20, generator):
        found = re.search(r"year \d\d(\d\d) to", prompt.clean)
        assert found
        year = int(found[1])
        assert all(int(y) > year for y in prompt.right)
        assert all(int(y) <= year for y in prompt.wrong)


def test_sums_and_letters_are_right(generator: torch.Generator) -> None:
    for prompt in prompts("arithmetic", 20, generator):
        a, b = map(int, re.findall(r"\d", prompt.clean))
        assert prompt.right == (str(a + b),)
    for prompt in prompts("mcqa", 20, generator):
        for text, answer in ((prompt.clean, prompt.right), (prompt.corrupt, prompt.wrong)):
            color = re.search(r"is (\w+)\.", text)
            assert color
            assert f"{answer[0].strip()}. {color[1]}\n" in text


def test_the_next_parameter_is_the_first_that_is_not_described(generator: torch.Generator) -> None:
    for prompt in prompts("docstring", 20, generator):
        for text, answer in ((prompt.clean, prompt.right), (prompt.corrupt, prompt.wrong)):
            signature = re.search(r"\(self, (.*)\)", text)
            assert signature
            described = re.findall(r":param (\w+):", text)
            assert f" {signature[1].split(', ')[len(described)]}" == answer[0]


def test_a_tokenizer_that_does_not_suit_is_refused(generator: torch.Generator) -> None:
    def by_letters(text: str) -> list[int]:
        return [0, *map(ord, text)]

    with pytest.raises(Refusal, match=r"0 of 100 ioi prompts suit this tokenizer and 2 are needed; .*one token"):
        aligned_pairs("ioi", 2, by_letters, generator)
    with pytest.raises(Refusal, match=r"no task 'iou'; did you mean 'ioi'\?"):
        pairs("iou", 2, by_letters, generator)
