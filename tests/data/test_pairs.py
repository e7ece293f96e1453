"""Pairs of prompts as tokens: which positions correspond, and what is refused."""

from pathlib import Path

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.site import Site
from microtome.core.trace import Trace
from microtome.data.pair_files import read_prompts
from microtome.data.pairs import Prompt, tokenized
from microtome.models.load import load

VOCABULARY: dict[str, int] = {}


def by_words(text: str) -> list[int]:
    """A token for the beginning and one for each word, the space before it included."""
    words = text.replace(" ", "\0 ").split("\0")
    return [0, *(VOCABULARY.setdefault(word, len(VOCABULARY) + 1) for word in words if word)]


EQUAL = Prompt("a cat sat", "a dog sat", (" down",), (" up",))
UNEQUAL = Prompt("the cat", "the very big cat", (" down",), (" up",))


def test_pairs_say_where_they_differ() -> None:
    pairs = tokenized([EQUAL], by_words)
    assert pairs.is_aligned
    assert pairs.differing().tolist() == [[False, False, True, False]]
    assert pairs.right.tolist() == by_words(" down")[1:]
    assert pairs.wrong.tolist() == by_words(" up")[1:]


def test_ragged_pairs_are_allowed_until_lengths_must_agree() -> None:
    pairs = tokenized([EQUAL, UNEQUAL], by_words)
    assert not pairs.is_aligned
    with pytest.raises(Refusal, match=r"pair 1 has 3 tokens clean and 5 corrupt .*only_aligned"):
        pairs.aligned()
    kept = pairs.only_aligned()
    assert kept.prompts == (EQUAL,)
    assert kept.clean.lengths.tolist() == [4]
    with pytest.raises(Refusal, match="none of the 1 pairs"):
        tokenized([UNEQUAL], by_words).only_aligned()


def test_padding_side_does_not_change_a_measure() -> None:
    prompts = [EQUAL, UNEQUAL]
    site = Site("logits", "batch pos vocab")
    right, left = (tokenized(prompts, by_words, left=side) for side in (False, True))

    def said(tokens: Tokens) -> Trace:
        """Logits that depend on the position alone."""
        size = len(VOCABULARY) + 1
        x = tokens.positions[..., None].float() * torch.arange(size)
        return Trace(tokens, {"logits": x / size}, {"logits": site})

    for name in ("logit_difference", "probability_difference"):
        torch.testing.assert_close(getattr(right, name)()(said(right.clean)), getattr(left, name)()(said(left.clean)))


def test_the_probability_difference_sums_over_answers() -> None:
    several = Prompt("a cat sat", "a dog sat", (" down", " up"), (" away",))
    pairs = tokenized([several, EQUAL], by_words)
    logits = torch.randn(2, 4, len(VOCABULARY) + 1)
    trace = Trace(pairs.clean, {"logits": logits}, {"logits": Site("logits", "batch pos vocab")})
    p = logits[:, -1].softmax(-1)
    down, up, away = (by_words(w)[1] for w in (" down", " up", " away"))
    expected = torch.stack([p[0, down] + p[0, up] - p[0, away], p[1, down] - p[1, up]])
    torch.testing.assert_close(pairs.probability_difference()(trace), expected)
    with pytest.raises(Refusal, match="pair 0 has 2 answers"):
        pairs.logit_difference()


def test_answers_of_several_tokens_and_long_prompts_are_refused() -> None:
    with pytest.raises(Refusal, match="an answer is one token"):
        tokenized([EQUAL._replace(right=(" far away",))], by_words)
    with pytest.raises(Refusal, match="context holds 3"):
        tokenized([EQUAL], by_words, context=3)
    with pytest.raises(Refusal, match="at least one"):
        tokenized([], by_words)


def test_some_pairs_are_those_pairs() -> None:
    pairs = tokenized([EQUAL, UNEQUAL, EQUAL], by_words)
    some = pairs.rows(slice(1, 3))
    assert some.prompts == (UNEQUAL, EQUAL)
    assert some.right_ids == pairs.right_ids[1:]
    assert str(pairs) == "3 pairs of 3 to 4 tokens"


def test_a_real_model_tells_he_from_she_on_all_of_the_aligned_pairs(shared_data: Path) -> None:
    """Each pair stands there both ways round, so the two means are each other's negative."""
    model = load(shared_data / "stories260k-hf", verify=False)
    prompts = read_prompts(shared_data / "circuit-prompts" / "tinystories_gender_pronoun.json")
    pairs = tokenized(prompts, model.encode, context=512).aligned()
    measure = pairs.logit_difference()
    clean, corrupt = measure(model.run(pairs.clean)), measure(model.run(pairs.corrupt))
    assert int((clean > 0).sum()) == int((corrupt < 0).sum()) == len(pairs)
    torch.testing.assert_close(clean.mean(), -corrupt.mean(), atol=1e-4, rtol=0)
