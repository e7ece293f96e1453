"""A quickened network is the same network up to rounding, and is itself again afterwards."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.activations import NewGELUActivation

from microtome.models.load import load
from microtome.models.quickening import IN_ONE_PASS, quickened


@pytest.mark.parametrize("kind", IN_ONE_PASS)
def test_every_activation_in_one_pass_is_the_one_it_stands_for(kind):
    x = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    theirs = kind()
    expected = theirs(x)
    with quickened(theirs):
        assert torch.allclose(theirs(x), expected, atol=1e-12)
        assert theirs.forward is IN_ONE_PASS[kind]
    assert "forward" not in vars(theirs)


def test_the_network_is_its_own_again_even_after_an_error():
    model = load(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=20, n_positions=8)))
    ids = torch.arange(6)[None]
    before = model.run(ids)["logits"]
    with pytest.raises(ZeroDivisionError), model.quickened():
        assert torch.allclose(model.run(ids)["logits"], before, atol=1e-6)
        raise ZeroDivisionError
    assert torch.equal(model.run(ids)["logits"], before)
    assert not [m for m in model.module.modules() if isinstance(m, NewGELUActivation) and "forward" in vars(m)]
