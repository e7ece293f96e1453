"""Many edits in one pass are the same edits one by one; a gradient is a finite difference."""

import pytest
import torch

from microtome.core.edit import Edit, ablate, add, patch, zero
from microtome.core.effects import effects
from microtome.core.errors import Refusal
from microtome.core.gradients import gradients
from microtome.core.inputs import Tokens
from microtome.core.linear import Coordinates
from microtome.core.measure import activity, cross_entropy, kl, log_probability, logit_diff
from microtome.core.site import Site
from microtome.models.hooked import HookedModel
from tests import toys
from tests.toys import WIDTH

RESID = Site("resid_post.0")
RIGHT, WRONG = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
CORRUPT = Tokens.of([[8, 8, 8, 8, 8], [9, 9], [7, 7, 7, 7, 7, 7, 7]])


def cells(network: HookedModel, inputs: Tokens) -> list[Edit | list[Edit]]:
    clean = network.run(inputs, read=network.sites("resid_*"))
    basis = Coordinates(RESID, WIDTH)
    single = [patch(s.at(pos=p), clean) for s in clean.sites for p in (0, -1)]
    return [
        *single,
        zero(RESID),
        ablate(basis[2]),
        [zero(RESID.at(pos=0)), add(torch.ones(WIDTH), 2.0, Site("resid_post.1"))],
        ablate(basis[1]).at(batch=1),
    ]


@pytest.mark.parametrize("rows", [1, 7, 256])
@pytest.mark.parametrize("left", [False, True])
def test_batched_cells_are_the_cells_one_by_one(network: HookedModel, rows: int, left: bool) -> None:
    inputs = Tokens.of(toys.RAGGED, left=left)
    measure, edits = logit_diff(RIGHT, WRONG), cells(network, CORRUPT if not left else inputs)
    found = effects(network, inputs, edits, measure, rows=rows)
    before = measure(network.run(inputs))
    for cell, effect in zip(edits, found, strict=True):
        after = measure(network.run(inputs, edit=[cell] if isinstance(cell, Edit) else cell))
        torch.testing.assert_close(effect.moved, after - before, rtol=1e-4, atol=1e-5)


def test_an_edit_of_one_row_moves_that_row_alone(network: HookedModel) -> None:
    found = effects(network, toys.rows(), [zero(RESID.at(batch=1)), zero(RESID)], logit_diff(RIGHT, WRONG))
    assert found.moved[0, 0] == found.moved[0, 2] == 0 and found.moved[0, 1] == found.moved[1, 1] != 0


def test_a_grid_lays_effects_out_by_layer_and_position_and_leaves_gaps_open(network: HookedModel) -> None:
    edits = [zero(network.site(f"resid_post.{layer}").at(pos=p)) for layer, p in ((0, 0), (0, 3), (1, 3))]
    found = effects(network, toys.rows(), edits, cross_entropy())
    grid = found.grid("layer", "pos")
    assert grid.rows == ("layer", [0, 1]) and grid.columns == ("pos", [0, 3])
    assert torch.equal(grid.values[[0, 0, 1], [0, 1, 1]], found.moved.mean(1)) and grid.values[1, 0].isnan()


def test_a_grid_takes_slices_as_places_and_refuses_to_hide_one_effect_behind_another(network: HookedModel) -> None:
    halves = [zero(RESID.at(pos=half)) for half in (slice(0, 2), slice(2, None))]
    assert effects(network, toys.rows(), halves, cross_entropy()).grid("layer", "pos").values.shape == (1, 2)
    twice = [zero(network.site(name).at(pos=0)) for name in ("resid_post.0", "mlp_out.0")]
    with pytest.raises(Refusal, match="two cells stand at layer 0, pos 0"):
        effects(network, toys.rows(), twice, cross_entropy()).grid("layer", "pos")
    with pytest.raises(Refusal, match="has no place on the axis 'head'"):
        effects(network, toys.rows(), twice, cross_entropy()).grid("layer", "head")


def test_no_edits_are_refused(network: HookedModel) -> None:
    with pytest.raises(Refusal, match="effects needs at least one edit"):
        effects(network, toys.rows(), [], cross_entropy())


# ---------------------------------------------------------------- measures


def test_measures_add_and_scale(network: HookedModel) -> None:
    trace = network.run(toys.rows(), read=[RESID, "logits"])
    a, b = logit_diff(RIGHT, WRONG), activity(Coordinates(RESID, WIDTH)[1])
    torch.testing.assert_close((2.0 * a - b)(trace), 2 * a(trace) - b(trace))
    assert set((a - b).reads) == {Site("logits", "batch pos vocab").at(pos=-1), RESID}


@pytest.mark.parametrize("left", [False, True])
def test_every_measure_of_a_ragged_batch_is_that_of_its_rows(network: HookedModel, left: bool) -> None:
    def all_of(inputs: Tokens, rows: slice) -> list[torch.Tensor]:
        trace, other = (network.run(inputs, read=[RESID, "logits"], edit=e) for e in ([], [zero(RESID)]))
        measures = [
            logit_diff(RIGHT[rows], WRONG[rows]), log_probability(RIGHT[rows]), cross_entropy(), kl(other),
            activity(Coordinates(RESID, WIDTH)[1]),
        ]  # fmt: skip
        return [m(trace) for m in measures]

    together = all_of(Tokens.of(toys.RAGGED, left=left), slice(0, 3))
    for r, row in enumerate(toys.RAGGED):
        for one, many in zip(all_of(Tokens.of([row]), slice(r, r + 1)), together, strict=True):
            torch.testing.assert_close(one[0], many[r], rtol=1e-4, atol=1e-5)


def test_a_divergence_from_oneself_is_zero_and_a_loss_is_minus_the_log_probability(network: HookedModel) -> None:
    inputs = Tokens.of([[3, 1], [9, 2]])
    trace = network.run(inputs)
    torch.testing.assert_close(kl(trace)(trace), torch.zeros(2), atol=1e-6, rtol=0)
    first = network.run(Tokens.of([[3], [9]]))
    torch.testing.assert_close(cross_entropy()(trace), -log_probability(torch.tensor([1, 2]))(first))


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", ["embed", "resid_pre.0", "mlp_act.1", "resid_post.1", "logits"])
@pytest.mark.parametrize("left", [False, True])
def test_a_gradient_is_a_finite_difference(name: str, left: bool) -> None:
    network, inputs = toys.residual(torch.float64), Tokens.of(toys.RAGGED, left=left)
    measure, site = logit_diff(RIGHT, WRONG), network.site(name)
    gradient = gradients(network, inputs, measure, [site])[site]
    here, size = site.at(pos=1), 1e-6
    direction = torch.randn(gradient.shape[-1], dtype=torch.float64)
    up, down = (measure(network.run(inputs, edit=[add(direction, s, here)])).sum() for s in (size, -size))
    expected = (gradient[here.select(inputs, gradient.shape).index] @ direction).sum()
    torch.testing.assert_close((up - down) / (2 * size), expected, rtol=1e-6, atol=1e-8)


def test_gradients_at_several_sites_are_those_at_each_alone(network: HookedModel) -> None:
    sites, measure = network.sites("resid_*"), cross_entropy()
    together = gradients(network, toys.rows(), measure, sites)
    for site in sites:
        torch.testing.assert_close(together[site], gradients(network, toys.rows(), measure, [site])[site])


def test_a_site_that_comes_after_what_is_measured_is_refused(network: HookedModel) -> None:
    with pytest.raises(Refusal, match="does not depend on resid_post.1: it comes after what is measured"):
        gradients(network, toys.rows(), activity(Coordinates(RESID, WIDTH)[0]), [Site("resid_post.1")])
