"""What a user can do wrong is answered in one sentence that holds the value and the remedy."""

from collections.abc import Callable

import pytest
import torch

from microtome.core.edit import add, masked, splice
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.sae import SAE
from tests import toys

SITE = Site("resid_post.0")
NETWORK = toys.residual()
MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "a misspelt site": (
        lambda: NETWORK.site("mlp_ou.0"),
        "no site 'mlp_ou.0'; did you mean 'mlp_out.0' or 'mlp_out.1' or 'mlp_in.0'?",
    ),
    "a site like no other": (
        lambda: NETWORK.site("frontal cortex"),
        "no site 'frontal cortex'; model.sites('*') lists them",
    ),
    "a pattern that matches nothing": (lambda: NETWORK.sites("resid_past.*"), "no site 'resid_past.*'; did you mean"),
    "a misspelt axis": (
        lambda: SITE.at(position=3),
        "site 'resid_post.0' has the axes 'batch pos d', and no 'position'",
    ),
    "a slice with a step": (
        lambda: SITE.at(pos=slice(0, 9, 2)),
        "pos=0:9:2 has a step; give the places as a list of numbers",
    ),
    "an empty batch": (lambda: Tokens.of([]), "a batch needs at least one row, and every row at least one token"),
    "an empty tensor": (
        lambda: Tokens.of(torch.zeros(0, 4, dtype=torch.long)),
        "a batch needs at least one row, and every row at least one token",
    ),
    "an empty row": (lambda: Tokens.of([[1], []]), "a batch needs at least one row, and every row at least one token"),
    "a position past the end": (
        lambda: NETWORK.run(toys.rows(ragged=True), read=[SITE])[SITE.at(pos=5)],
        "row 0 has 5 tokens, so no position 5; positions count from 0, or back from -1",
    ),
    "k of zero": (lambda: TopK(0), "k is 0; at least one component must be active"),
    "no width": (lambda: SAE(SITE, 8, 0, TopK(1)), "width is 0; a dictionary needs at least one component"),
    "k beyond the width": (
        lambda: SAE(SITE, 8, 4, TopK(5)).encode(torch.zeros(2, 8)),
        "k is 5, more than the 4 components there are",
    ),
    "a vector without a site": (
        lambda: add(torch.ones(8), 1.0),
        "a vector alone does not say where: add(vector, strength, site)",
    ),
    "a vector of another width": (
        lambda: NETWORK.run(toys.rows(), edit=[add(torch.ones(3), 1.0, SITE)]),
        "a vector of width 3 cannot be added at resid_post.0, which is 8 wide",
    ),
    "splicing what writes nothing": (
        lambda: splice(Linear(SITE, None, torch.ones(1, 8))), "Linear writes nothing, so it can be read but not edited",
    ),
    "masking some columns only": (
        lambda: NETWORK.run(toys.rows(), edit=[masked(SAE(SITE, 8, 4, TopK(1)), torch.ones(4)).at(d=2)]),
        "resid_post.0[d=2]: a component writes the whole width; choose rows and positions, not d",
    ),
    "text for a model without a tokenizer": (
        lambda: NETWORK.run("hello"), "Residual has no tokenizer; give token ids (Tokens.of(rows)) in place of text",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_in_one_sentence_with_its_remedy(name: str) -> None:
    mistake, sentence = MISTAKES[name]
    with pytest.raises(Refusal) as refused:
        mistake()
    assert str(refused.value).startswith(sentence) and "\n" not in str(refused.value)
