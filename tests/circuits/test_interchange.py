"""Swaps against what they mean, done by hand; counterfactual answers of a network that computes one on purpose."""

import pytest
import torch
from torch import nn

from microtome.circuits.interchange import (
    Accuracy,
    Counterfactuals,
    Interchange,
    interchange_accuracy,
    swap,
    swap_all,
    swap_error,
)
from microtome.core.edit import ablate, function
from microtome.core.errors import Refusal
from microtome.core.inputs import Arrays, Tokens
from microtome.core.linear import Coordinates, Linear
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.sae import SAE
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from tests import toys
from tests.toys import WIDTH

RESID = Site("resid_post.0")
OTHERS = [[8, 7, 2, 8, 1], [9, 9, 3, 4, 2], [7, 6, 5, 1, 3]]


def coder() -> SAE:
    return SAE(RESID, WIDTH, 24, TopK(5), generator=torch.Generator().manual_seed(0)).requires_grad_(False)


def other(network: HookedModel, *, ragged: bool = False):
    rows = [row[: len(mine)] for row, mine in zip(OTHERS, toys.RAGGED, strict=True)] if ragged else OTHERS
    return network.run(Tokens.of(rows), read=network.sites("resid_*"))


def test_swapping_what_is_the_same_changes_nothing(network: HookedModel) -> None:
    own = network.run(toys.rows(), read=[RESID, "logits"])
    for edit in (swap(coder()[3], own), swap_error(coder(), own)):
        after = network.run(toys.rows(), edit=[edit])["logits"]
        torch.testing.assert_close(after, own["logits"], rtol=1e-5, atol=1e-5)


def test_a_swap_takes_away_what_is_written_here_and_puts_what_was_written_there(network: HookedModel) -> None:
    sae, source = coder(), other(network)
    base = network.run(toys.rows(), read=[RESID])
    for i in range(len(sae)):
        left = network.run(toys.rows(), read=[RESID], edit=[swap(sae[i], source)])[RESID]
        change = (source.codes(sae).of(i) - base.codes(sae).of(i))[..., None] * sae[i].direction
        torch.testing.assert_close(left, base[RESID] + change, rtol=1e-5, atol=1e-5)


def test_all_components_and_the_error_together_are_the_whole_site(network: HookedModel) -> None:
    sae, source = coder(), other(network)
    edits = [swap_all(sae, source, torch.ones(len(sae))), swap_error(sae, source)]
    left = network.run(toys.rows(), read=[RESID], edit=edits)[RESID]
    torch.testing.assert_close(left, source[RESID], rtol=1e-5, atol=1e-5)


def test_two_swaps_are_one_swap_of_both(network: HookedModel) -> None:
    sae, source = coder(), other(network)
    both = torch.zeros(len(sae))
    both[[1, 5]] = 1.0
    apart, together = (
        network.run(toys.rows(), edit=e)["logits"]
        for e in ([swap(sae[5], source), swap(sae[1], source)], [swap_all(sae, source, both)])
    )
    torch.testing.assert_close(apart, together, rtol=1e-5, atol=1e-5)


def test_in_pictures_components_write_along_the_channels() -> None:
    model = load(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    base, source = (Arrays((torch.randn(2, 3, 6, 5),)) for _ in range(2))
    site = model.site("1")
    there, here = (model.run(x, read=[site]) for x in (source, base))
    left = model.run(base, read=[site], edit=[swap(Coordinates(site, 4)[2], there)])[site]
    wanted = here[site].clone()
    wanted[:, 2] = there[site][:, 2]
    torch.testing.assert_close(left, wanted)


# ---------------------------------------------------------------- positions


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("component", [False, True])
def test_places_are_counted_in_each_rows_own_tokens(network: HookedModel, left: bool, component: bool) -> None:
    base = Tokens.of(toys.RAGGED, left=left)
    source = network.run(Tokens.of(OTHERS, left=not left), read=[RESID])
    basis = Coordinates(RESID, WIDTH)
    edit = Interchange(basis[4] if component else RESID, here=-1, there=1).edit(base, source)
    found = network.run(base, read=[RESID], edit=[edit])
    for i, (mine, theirs) in enumerate(zip(toys.singly(toys.RAGGED), toys.singly(OTHERS), strict=True)):
        wanted = network.run(mine, read=[RESID])[RESID][0].clone()
        given = network.run(theirs, read=[RESID])[RESID][0]
        kept = slice(4, 5) if component else slice(None)
        wanted[-1, kept] = given[1, kept]
        torch.testing.assert_close(found[RESID][i][base.mask[i]], wanted, rtol=1e-5, atol=1e-5)


def test_several_places_at_once(network: HookedModel) -> None:
    source = other(network)
    edit = Interchange(RESID, here=(0, 3), there=(2, 1)).edit(toys.rows(), source)
    left = network.run(toys.rows(), read=[RESID], edit=[edit])[RESID]
    assert torch.equal(left[:, [0, 3]], source[RESID][:, [2, 1]])
    assert torch.equal(left[:, [1, 2, 4]], network.run(toys.rows(), read=[RESID])[RESID][:, [1, 2, 4]])


def test_places_that_do_not_pair_up_are_refused(network: HookedModel) -> None:
    with pytest.raises(Refusal, match=r"positions \(0, 3\) of the base and 1 of the source are not equally many"):
        Interchange(RESID, here=(0, 3), there=1).edit(toys.rows(), other(network))
    with pytest.raises(Refusal, match="positions 2 of the source have no place to go"):
        Interchange(RESID, there=2)
    with pytest.raises(Refusal, match="a mask of 3 does not fit 24 components"):
        swap_all(coder(), other(network), torch.ones(3))


# ---------------------------------------------------------------- counterfactual answers


class Sums(nn.Module):
    """Of (a, b, c), with values 0 and 1: the logits of a + b + c = 0, 1, 2, 3, by way of a + b."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rest = nn.Linear(3, 2, bias=False), nn.Linear(2, 4)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
            counts = torch.arange(4.0)
            self.rest.weight.copy_(torch.stack([counts, counts], 1))
            self.rest.bias.copy_(-counts * counts / 2)  # largest where the count is the sum

    def forward(self, x):
        return self.rest(self.first(x))


def sums(rows: int, of: int) -> tuple[HookedModel, Counterfactuals]:
    """Counterfactuals of a + b (of=2) or of a alone (of=1), taken from the source."""
    base, source = torch.randint(2, (2, rows, 3)).float()
    wanted = source[:, :of].sum(1) + base[:, of:].sum(1)
    return load(Sums()), Counterfactuals(Arrays((base,)), Arrays((source,)), wanted.long())


LOGITS = Site("rest", "batch vocab")


def test_the_variable_that_a_place_holds_is_swapped_there_and_another_is_not() -> None:
    model, right = sums(200, of=2)
    holds = Linear(Site("first", "batch d"), Site("first", "batch d"), torch.eye(2))
    swaps = [Interchange(holds[0])]
    found = interchange_accuracy(model, right, swaps, logits=LOGITS, rows=64)
    untouched = interchange_accuracy(model, right, [], logits=LOGITS)
    assert found.value == 1.0 and untouched.interval[1] < 0.7
    _, wrong = sums(200, of=1)
    assert interchange_accuracy(model, wrong, swaps, logits=LOGITS).interval[1] < 0.9


def test_parts_of_the_data_do_not_change_the_answers() -> None:
    model, data = sums(50, of=2)
    swaps = [Interchange(Site("first", "batch d"))]
    whole, parts = (interchange_accuracy(model, data, swaps, logits=LOGITS, rows=rows) for rows in (256, 7))
    assert torch.equal(whole.hits, parts.hits)


def test_an_epoch_of_batches_is_every_row_once(generator: torch.Generator) -> None:
    _, data = sums(50, of=2)
    for row in range(50):
        data.wanted[row] = row
    seen = torch.cat([b.wanted for b in data.batches(8, epochs=2, generator=generator)])
    assert torch.equal(seen.sort().values, torch.arange(50).repeat_interleave(2))


def test_data_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(Refusal, match="3 bases, 3 sources and 2 answers"):
        Counterfactuals(toys.rows(), toys.rows(), torch.zeros(2, dtype=torch.long))


def test_an_interval_holds_its_value_and_narrows_with_rows() -> None:
    few, many = (Accuracy(torch.tensor([True, True, True, False] * n)) for n in (5, 500))
    for each in (few, many):
        assert each.interval[0] < each.value < each.interval[1]
    assert many.interval[1] - many.interval[0] < few.interval[1] - few.interval[0]
    low, high = Accuracy(torch.ones(10, dtype=torch.bool)).interval
    assert 0.5 < low < high <= 1.0


def test_a_swap_beside_other_deltas_is_computed_from_what_arrived(network: HookedModel) -> None:
    sae, source = coder(), other(network)
    edits = [ablate(sae[2]), swap(sae[7], source)]
    one, two = (network.run(toys.rows(), edit=e)["logits"] for e in (edits, edits[::-1]))
    assert torch.equal(one, two)
    alone = network.run(toys.rows(), read=[RESID], edit=[function(RESID, lambda x: x)])[RESID]
    changes = [network.run(toys.rows(), read=[RESID], edit=[e])[RESID] - alone for e in edits]
    both = network.run(toys.rows(), read=[RESID], edit=edits)[RESID]
    torch.testing.assert_close(both, alone + sum(changes), rtol=1e-5, atol=1e-5)
