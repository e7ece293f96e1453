"""Edits see what arrived, so their order never matters; what changes nothing changes nothing."""

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from microtome.core.component import Dictionary
from microtome.core.edit import (
    Edit,
    ablate,
    add,
    clamp,
    fill,
    function,
    masked,
    patch,
    project_out,
    scale,
    splice,
    zero,
)
from microtome.core.errors import Conflict, Refusal
from microtome.core.inputs import Arrays, Tokens
from microtome.core.linear import Coordinates, Linear, Neurons
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.sae import SAE
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from tests import toys
from tests.toys import NEURONS, WIDTH

RESID, OUT = Site("resid_post.0"), Site("mlp_out.1")


def sae(site: Site = RESID, width: int = 20) -> SAE:
    return SAE(site, WIDTH, width, TopK(4), generator=torch.Generator().manual_seed(0)).requires_grad_(False)


def logits(network: HookedModel, inputs: Tokens, *edits: Edit) -> Tensor:
    return network.run(inputs, edit=edits)["logits"]


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def neurons_of(network: HookedModel, layer: int) -> Neurons:
    one, _, two = network.module.layers[layer].mlp
    return Neurons(Site(f"mlp_in.{layer}"), Site(f"mlp_out.{layer}"), one.weight, one.bias, two.weight.T, two.bias)


# ---------------------------------------------------------------- composition


def edits_at_one_place() -> list[Edit]:
    dictionary, direction = sae(), torch.linspace(-1, 1, WIDTH)
    return [
        fill(RESID, torch.linspace(0, 1, WIDTH)),
        add(direction, 2.0, RESID),
        ablate(dictionary[3]),
        clamp(dictionary[5], 1.5),
        project_out(direction, RESID.at(pos=-1)),
        masked(dictionary, torch.linspace(0, 2, 20)),
    ]


def test_the_order_of_edits_never_matters(network: HookedModel) -> None:
    edits, inputs = edits_at_one_place(), toys.rows(ragged=True)
    expected = logits(network, inputs, *edits)
    for order in list(permutations(edits))[::37]:
        close(logits(network, inputs, *order), expected)


def test_deltas_add_up_each_computed_from_what_arrived(network: HookedModel) -> None:
    inputs, (_, *deltas) = toys.rows(), edits_at_one_place()
    before = network.run(inputs, read=[RESID])[RESID]
    alone = [network.run(inputs, read=[RESID], edit=[e])[RESID] - before for e in deltas]
    close(network.run(inputs, read=[RESID], edit=deltas)[RESID], before + sum(alone))


def test_a_delta_beside_a_replacement_is_computed_from_what_arrived_and_added_to_what_replaced_it(
    network: HookedModel,
) -> None:
    inputs, dictionary = toys.rows(), sae()
    before = network.run(inputs, read=[RESID])[RESID]
    both = network.run(inputs, read=[RESID], edit=[zero(RESID), ablate(dictionary[3])])[RESID]
    close(both, network.run(inputs, read=[RESID], edit=[ablate(dictionary[3])])[RESID] - before)


def test_two_ablations_take_away_what_the_two_write(network: HookedModel) -> None:
    inputs, dictionary = toys.rows(), sae()
    x = network.run(inputs, read=[RESID])[RESID]
    codes = dictionary.encode(x)
    expected = x - dictionary.contribution(codes, 3) - dictionary.contribution(codes, 5)
    close(network.run(inputs, read=[RESID], edit=[ablate(dictionary[3]), ablate(dictionary[5])])[RESID], expected)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (dict(), dict()),
        (dict(pos=1), dict()),
        (dict(pos=-1), dict(pos=4)),
        (dict(pos=slice(0, 3)), dict(pos=(2, 3))),
        (dict(batch=1), dict(batch=slice(0, 2))),
        (dict(d=2), dict(pos=0)),
    ],
)
def test_two_replacements_of_one_place_are_refused(network: HookedModel, one: dict, other: dict) -> None:
    with pytest.raises(Conflict, match="would both replace the same place; keep one of them"):
        logits(network, toys.rows(), zero(RESID.at(**one)), fill(RESID.at(**other), torch.ones(())))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (dict(pos=1), dict(pos=2)),
        (dict(pos=-1), dict(pos=0)),
        (dict(pos=slice(0, 2)), dict(pos=slice(2, None))),
        (dict(batch=0), dict(batch=slice(1, None))),
        (dict(d=2), dict(d=(3, 4))),
    ],
)
def test_replacements_of_different_places_are_both_made(network: HookedModel, one: dict, other: dict) -> None:
    inputs = toys.rows()
    left = network.run(inputs, read=[RESID], edit=[zero(RESID.at(**one)), fill(RESID.at(**other), torch.ones(()))])[
        RESID
    ]
    before = network.run(inputs, read=[RESID])[RESID].clone()
    before[RESID.at(**one).select(inputs, before.shape).index] = 0.0
    before[RESID.at(**other).select(inputs, before.shape).index] = 1.0
    assert torch.equal(left, before)


# ---------------------------------------------------------------- what changes nothing


@pytest.mark.parametrize(
    "where", [dict(), dict(pos=-1), dict(pos=slice(1, None)), dict(batch=1), dict(batch=slice(1, 3), pos=0)]
)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", ["embed", "resid_pre.1", "mlp_act.0", "mlp_out.1", "logits"])
def test_patching_a_site_with_itself_changes_nothing(network: HookedModel, name: str, where: dict, left: bool) -> None:
    inputs = toys.rows(ragged=True, left=left)
    site = network.site(name)
    clean = network.run(inputs, read=[site, "logits"])
    assert torch.equal(logits(network, inputs, patch(site.at(**where), clean)), clean["logits"])


def test_a_patch_finds_the_same_positions_wherever_the_padding_lies(network: HookedModel) -> None:
    right, left = toys.rows(ragged=True), toys.rows(ragged=True, left=True)
    clean = network.run(left, read=[RESID])
    close(logits(network, right, patch(RESID.at(pos=-1), clean)), logits(network, right))


def test_a_patch_of_one_row_takes_that_row_of_the_source(network: HookedModel) -> None:
    inputs, other = toys.rows(), Tokens.of([[7, 7, 7, 7, 7], [8, 8, 8, 8, 8], [2, 2, 2, 2, 2]])
    source = network.run(other, read=[RESID])
    for where in (dict(batch=1), dict(batch=1, pos=2)):
        left = network.run(inputs, read=[RESID], edit=[patch(RESID.at(**where), source)])
        site = RESID.at(**where)
        assert torch.equal(left[site], source[site])
        assert torch.equal(left[RESID][0], network.run(inputs, read=[RESID])[RESID][0])


def test_a_source_of_one_row_serves_every_row(network: HookedModel) -> None:
    source = network.run(Tokens.of([[7, 7, 7, 7, 7]]), read=[RESID])
    left = network.run(toys.rows(), read=[RESID], edit=[patch(RESID.at(pos=2), source)])[RESID]
    assert torch.equal(left[:, 2], source[RESID][:, 2].expand(3, -1))


def test_splicing_with_the_error_kept_changes_nothing_even_untrained(network: HookedModel) -> None:
    inputs, dictionary = toys.rows(ragged=True), sae()
    close(logits(network, inputs, masked(dictionary, torch.ones(20))), logits(network, inputs))
    clean = network.run(inputs, read=[RESID])[RESID]
    error = clean - dictionary.decode(dictionary.encode(clean))
    left = network.run(inputs, read=[RESID], edit=[splice(dictionary), function_delta(error)])[RESID]
    close(left, clean)


def function_delta(value: Tensor) -> Edit:
    """Something of one's own: a delta that is given."""

    class Given(Edit):
        replaces = False

        def value(self, part: Tensor, selection: object, arrived: object) -> Tensor:
            return value

    return Given(RESID)


def test_scaling_by_one_and_clamping_to_what_is_there_change_nothing(network: HookedModel) -> None:
    inputs = Tokens.of([[3]])
    dictionary = Coordinates(RESID, WIDTH)
    there = network.run(inputs, read=[RESID])[RESID][0, 0, 2].item()
    for edit in (scale(dictionary[2], 1.0), clamp(dictionary[2], there), add(dictionary[2], 0.0)):
        close(logits(network, inputs, edit), logits(network, inputs))


# ---------------------------------------------------------------- what each edit means


@pytest.mark.parametrize("neuron", [0, 5, NEURONS - 1])
def test_ablating_a_neuron_is_zeroing_its_weights(network: HookedModel, neuron: int) -> None:
    other = toys.residual()
    with torch.no_grad():
        other.module.layers[1].mlp[2].weight[:, neuron] = 0.0
    for dictionary in (
        neurons_of(network, 1),
        Coordinates(Site("mlp_act.1", "batch pos neuron"), NEURONS, OUT, network.module.layers[1].mlp[2].weight.T),
    ):
        close(
            logits(network, toys.rows(ragged=True), ablate(dictionary[neuron])), logits(other, toys.rows(ragged=True))
        )


def test_masking_all_components_out_leaves_the_error_and_the_bias(network: HookedModel) -> None:
    inputs, dictionary = toys.rows(), sae()
    x = network.run(inputs, read=[RESID])[RESID]
    nothing = dictionary.decode(dictionary.encode(x).scaled(torch.zeros(20)))
    left = network.run(inputs, read=[RESID], edit=[masked(dictionary, torch.zeros(20))])[RESID]
    close(left, x - dictionary.decode(dictionary.encode(x)) + nothing)
    close(network.run(inputs, read=[RESID], edit=[splice(dictionary, mask=torch.zeros(20))])[RESID], nothing)


def test_clamping_sets_the_activity_of_a_component_that_reads_along_what_it_writes(network: HookedModel) -> None:
    inputs = toys.rows()
    basis = Linear(RESID, RESID, torch.eye(WIDTH))
    left = network.run(inputs, read=[RESID], edit=[clamp(basis[3], 2.5).at(pos=1)])[RESID]
    assert torch.equal(left[:, 1, 3], torch.full((3,), 2.5)) and not torch.equal(left[:, 2, 3], left[:, 1, 3])


def test_projecting_out_leaves_nothing_along_the_direction_and_everything_across_it(network: HookedModel) -> None:
    inputs, direction = toys.rows(), torch.linspace(-1, 2, WIDTH)
    before, left = (network.run(inputs, read=[RESID], edit=e)[RESID] for e in ([], [project_out(direction, RESID)]))
    close(left @ direction, torch.zeros(3, 5))
    close((before - left), ((before @ direction) / direction.pow(2).sum())[..., None] * direction)


def test_an_edit_at_positions_leaves_the_others_alone(network: HookedModel) -> None:
    inputs, dictionary = toys.rows(ragged=True, left=True), sae()
    before = network.run(inputs, read=[RESID])[RESID]
    for edit in (
        ablate(dictionary[3]),
        add(torch.ones(WIDTH), 1.0, RESID),
        splice(dictionary),
        function(RESID, torch.sin),
    ):
        left = network.run(inputs, read=[RESID], edit=[edit.at(pos=-1)])[RESID]
        whole = network.run(inputs, read=[RESID], edit=[edit])[RESID]
        assert torch.equal(left[:, :-1], before[:, :-1])
        close(left[:, -1], whole[:, -1])


def test_edits_of_pictures_choose_rows_and_columns() -> None:
    hooked, pictures = load(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), Arrays((torch.randn(2, 3, 8, 8),))
    site = hooked.site("0")
    left = hooked.run(pictures, read=[site], edit=[zero(site.at(y=2, x=[1, 3], d=0))])[site]
    before = hooked.run(pictures, read=[site])[site].clone()
    before[:, 0, 2, [1, 3]] = 0.0
    assert torch.equal(left, before)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "edit",
    [ablate, lambda c: scale(c, 2.0), lambda c: clamp(c, 1.0), lambda c: add(c, 1.0), lambda c: splice(c.dictionary)],
)
@pytest.mark.parametrize("dictionary", [Linear(RESID, None, torch.ones(1, WIDTH))])
def test_a_component_that_writes_nothing_refuses_to_be_edited(edit: object, dictionary: Dictionary) -> None:
    with pytest.raises(Refusal, match="writes nothing, so it can be read but not"):
        edit(dictionary[0])


def test_a_probe_can_be_read(network: HookedModel) -> None:
    probe = Linear(RESID, None, torch.ones(1, WIDTH))[0]
    x = network.run(toys.rows(), read=[RESID])[RESID]
    close(probe.activity(x), x.sum(-1))


@pytest.mark.parametrize("where", [dict(), dict(batch=slice(0, 2)), dict(pos=9)])
def test_a_source_that_cannot_be_matched_is_refused(network: HookedModel, where: dict) -> None:
    source = network.run(Tokens.of([[1, 2], [3, 4], [5, 6]]), read=[RESID])
    with pytest.raises(Refusal, match="cannot patch|no position"):
        logits(network, toys.rows(), patch(RESID.at(**where), source))


def test_a_source_with_another_number_of_rows_is_refused(network: HookedModel) -> None:
    source = network.run(Tokens.of([[1, 2, 3, 4, 5]] * 2), read=[RESID])
    with pytest.raises(Refusal, match="the source has 2 rows and the batch 3"):
        logits(network, toys.rows(), patch(RESID.at(pos=0), source))


def test_a_patch_from_a_shorter_row_says_which_position_is_missing(network: HookedModel) -> None:
    source = network.run(Tokens.of([[1, 2], [3, 4, 5], [5, 6]]), read=[RESID])
    with pytest.raises(Refusal, match="the source's row 0 has no position 2 to patch from"):
        logits(network, toys.rows(), patch(RESID.at(pos=2), source))
