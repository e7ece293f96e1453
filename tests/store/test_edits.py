"""Edits as files."""

import pytest
import torch

import microtome as mt
from microtome.core.linear import Linear
from microtome.store.edits import load_edits, save_edits

SITE = mt.Site("resid_post.0")


def edits(dictionary):
    inputs = mt.Tokens.of([[1, 2, 3], [4, 5]])
    trace = mt.Trace(inputs, {SITE.name: torch.randn(2, 3, 4)}, {SITE.name: SITE})
    return [
        mt.patch(SITE.at(pos=-1), trace), mt.zero(SITE.at(pos=slice(1, None))), mt.add(torch.randn(4), 2.5, SITE),
        mt.ablate(dictionary[1]), mt.clamp(dictionary[0], 3.0), mt.splice(dictionary, mask=torch.rand(3)),
        mt.project_out(torch.randn(4), SITE), mt.masked(dictionary, torch.rand(3)),
    ]  # fmt: skip


def test_edits_that_are_saved_and_read_do_the_same(tmp_path):
    dictionary = Linear(SITE, SITE, torch.randn(3, 4), torch.randn(3, 4))
    made = edits(dictionary)
    save_edits(made, tmp_path / "edits.safetensors", {"probe": dictionary})
    found = load_edits(tmp_path / "edits.safetensors", {"probe": dictionary})
    inputs = mt.Tokens.of([[7, 8, 9], [6, 5]])
    x = torch.randn(2, 3, 4)
    for one, other in zip(made, found, strict=True):
        arrived = mt.Trace(inputs, {SITE.name: x}, {SITE.name: SITE})
        parts = [e.value(x[(s := e.site.select(inputs, x.shape)).index], s, arrived) for e in (one, other)]
        assert str(one) == str(other)
        assert one.site == other.site
        assert torch.equal(*parts)


def test_a_free_function_says_that_it_cannot_be_saved(tmp_path):
    with pytest.raises(mt.Refusal, match=r"function at resid_post\.0' cannot be saved"):
        save_edits([mt.function(SITE, torch.tanh)], tmp_path / "edits.safetensors")


def test_a_dictionary_that_is_not_given_is_asked_for_by_name(tmp_path):
    dictionary = Linear(SITE, SITE, torch.randn(3, 4), torch.randn(3, 4))
    save_edits([mt.ablate(dictionary[0])], tmp_path / "edits.safetensors", {"probe": dictionary})
    with pytest.raises(mt.Refusal, match="a dictionary called 'probe'"):
        load_edits(tmp_path / "edits.safetensors")
