"""Effects by gradient are effects by intervention where all is linear, and sum to a whole patch where it is not."""

import pytest
import torch
from torch import Tensor, nn

from microtome.circuits.feature_circuits import faithfulness, feature_circuit
from microtome.circuits.feature_effects import FeatureNode, attributed, edge_effects, exact, integrated, together
from microtome.circuits.interchange import error_of
from microtome.circuits.subspace import Subspace
from microtome.core.component import Dictionary
from microtome.core.edit import patch
from microtome.core.errors import Refusal
from microtome.core.gradients import gradients
from microtome.core.inputs import Arrays, Tokens
from microtome.core.linear import Linear
from microtome.core.measure import Measure, logit_diff
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import BatchTopK, ReLU, TopK
from microtome.dictionaries.sae import SAE
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from tests import toys
from tests.models import zoo
from tests.toys import WIDTH

OTHERS = Tokens.of([[8, 7, 2, 8, 1], [9, 9, 3, 4, 2], [7, 6, 5, 1, 3]])
DIFFERENCE = logit_diff(torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6]))
RESID = [Site("resid_post.0"), Site("resid_post.1")]


def coders(activation=TopK) -> list[Dictionary]:
    """With a bias, so that what is no latent's stands in the error."""
    made = [
        SAE(
            site, WIDTH, 24, ReLU() if activation is ReLU else activation(4), generator=torch.Generator().manual_seed(i)
        )
        for i, site in enumerate(RESID)
    ]
    for each in made:
        each.requires_grad_(False).b_dec.normal_(generator=torch.Generator().manual_seed(5)).mul_(0.1)
    return made


def every(found, number: int) -> list[FeatureNode]:
    return [n for n in found.nodes() if n.dictionary == number]


@pytest.mark.parametrize("activation", [TopK, BatchTopK, ReLU])
@pytest.mark.parametrize("corrupt", [OTHERS, None])
def test_where_the_rest_is_linear_every_way_is_exact(network: HookedModel, activation, corrupt) -> None:
    """Behind the last residual there is only the unembedding."""
    args = (network, toys.rows(), corrupt, coders(activation)[1:], DIFFERENCE)
    fast, along = attributed(*args), integrated(*args, steps=2)
    nodes = list(fast.nodes())
    truth = exact(*args, nodes)
    for found in (fast, along):
        torch.testing.assert_close(torch.stack([found.of(n) for n in nodes]), truth, rtol=1e-4, atol=1e-4)
    assert (truth.abs() > 1e-3).any(1).sum() > 5 and nodes[-1] == FeatureNode(0, None)


@pytest.mark.parametrize("corrupt", [OTHERS, None])
def test_effects_of_a_site_sum_to_the_patch_of_all_of_it(network: HookedModel, corrupt) -> None:
    """Integrated gradients are complete, however crooked the way."""
    sae = coders()[0]
    found = integrated(network, toys.rows(), corrupt, [sae], DIFFERENCE, steps=40)
    clean = network.run(toys.rows(), read=[RESID[0], "logits"])
    end = sae.b_dec.expand_as(clean[RESID[0]]) if corrupt is None else network.run(corrupt, read=[RESID[0]])[RESID[0]]
    source = type(clean)(toys.rows(), {RESID[0].name: end})
    whole = DIFFERENCE(network.run(toys.rows(), edit=[patch(RESID[0], source)])) - DIFFERENCE(clean)
    torch.testing.assert_close(found.tables[0].sum(1), whole, rtol=0.02, atol=0.05)


def test_a_row_of_a_batch_is_the_row_alone_and_batches_go_together(network: HookedModel) -> None:
    whole = attributed(network, toys.rows(), OTHERS, coders(), DIFFERENCE)
    alone = [
        attributed(
            network, toys.rows().rows(slice(i, i + 1)), OTHERS.rows(slice(i, i + 1)), coders(), logit_diff(1 + i, 4 + i)
        )
        for i in range(3)
    ]
    for table, other in zip(whole.tables, together(alone).tables, strict=True):
        torch.testing.assert_close(table, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("left", [False, True])
def test_padding_moves_nothing(network: HookedModel, left: bool) -> None:
    cut = [
        row[: len(mine)] + row[-1:] * (len(mine) - len(row))
        for row, mine in zip(OTHERS.ids.tolist(), toys.RAGGED, strict=True)
    ]
    ragged = attributed(network, Tokens.of(toys.RAGGED, left=left), Tokens.of(cut, left=left), coders(), DIFFERENCE)
    for i in range(3):
        alone = attributed(
            network, Tokens.of([toys.RAGGED[i]]), Tokens.of([cut[i]]), coders(), logit_diff(1 + i, 4 + i)
        )
        for table, other in zip(ragged.tables, alone.tables, strict=True):
            torch.testing.assert_close(table[i], other[0], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- edges, on a network whose every weight is known

FIRST, SECOND, THIRD = (Site(name, "batch d") for name in ("first", "second", "third"))
TOTAL = Measure(lambda t: t[THIRD].sum(1), (THIRD,), "total")


class Straight(nn.Module):
    """Three linear maps, one after the other; with `past`, the first also goes past the second."""

    def __init__(self, past: bool = False) -> None:
        super().__init__()
        self.past = past
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.second(x)
        return self.third(x + y) if self.past else self.third(y)


def straight(past: bool = False) -> tuple[HookedModel, list[Dictionary], Arrays, Arrays]:
    """Dictionaries of two directions in a space of four: the error holds the rest."""
    module = Straight(past).requires_grad_(False)
    parts: list[Dictionary] = []
    for site in (FIRST, SECOND):
        read = torch.linalg.qr(torch.randn(4, 4)).Q[:2]
        parts.append(Linear(site, site, read).requires_grad_(False))
    return load(module), parts, Arrays((torch.randn(6, 4),)), Arrays((torch.randn(6, 4),))


def test_edges_are_products_of_weights() -> None:
    model, (up, down), clean, corrupt = straight()
    nodes = [0, 1, None]
    found = edge_effects(model, clean, corrupt, up, down, TOTAL, nodes)
    second, third = model.module.second.weight, model.module.third.weight
    traces = [model.run(x, read=[FIRST]) for x in (clean, corrupt)]
    change = traces[1].codes(up).dense() - traces[0].codes(up).dense()
    error = error_of(up, traces[1]) - error_of(up, traces[0])
    through = third.sum(0)
    inside = down.read.T @ down.read
    for i, node in enumerate(nodes):
        onto = torch.eye(4) - inside if node is None else torch.outer(down.read[node], down.read[node])
        weights = through @ onto @ second  # of what leaves the first layer
        wanted = torch.cat([change * (up.read @ weights), (error @ weights)[:, None]], 1)
        torch.testing.assert_close(found[i], wanted, rtol=1e-4, atol=1e-5)


def test_edges_into_every_node_of_a_bottleneck_sum_to_the_effect_of_the_upstream_node() -> None:
    model, (up, down), clean, corrupt = straight()
    found = edge_effects(model, clean, corrupt, up, down, TOTAL, [0, 1, None])
    torch.testing.assert_close(
        found.sum(0), attributed(model, clean, corrupt, [up], TOTAL).tables[0], rtol=1e-4, atol=1e-5
    )


def test_an_edge_that_may_not_pass_a_site_goes_past_it() -> None:
    model, (up, down), clean, corrupt = straight(past=True)
    last = Linear(THIRD, THIRD, torch.eye(4)).requires_grad_(False)
    direct = edge_effects(model, clean, corrupt, up, last, TOTAL, [0, 1, 2, 3], stop=[SECOND])
    through = edge_effects(model, clean, corrupt, down, last, TOTAL, [0, 1, 2, 3])
    all_ways = edge_effects(model, clean, corrupt, up, last, TOTAL, [0, 1, 2, 3])
    weights = model.module.third.weight
    change = model.run(corrupt, read=[FIRST]).codes(up).dense() - model.run(clean, read=[FIRST]).codes(up).dense()
    for node in range(4):
        torch.testing.assert_close(direct[node][:, :2], change * (up.read @ weights[node]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(direct, all_ways) and through.shape == (4, 6, 3)


def test_latents_that_reach_each_other_in_a_network_with_corners(network: HookedModel) -> None:
    """An edge is the derivative of what the downstream latent writes along the gradient, tried by a small push."""
    up, down = (d.double() for d in coders(ReLU))
    model = toys.residual(torch.float64)
    clean, own = toys.rows(), model.run(toys.rows(), read=RESID)
    found = edge_effects(model, clean, OTHERS, up, down, DIFFERENCE, list(range(24)))
    change = model.run(OTHERS, read=RESID).codes(up).dense() - own.codes(up).dense()
    unembed = model.module.unembed.weight[[1, 2, 3]] - model.module.unembed.weight[[4, 5, 6]]
    tiny, latent = 1e-6, int(change.abs().sum((0, 1)).argmax())
    pushed = own[RESID[0]] + tiny * change[..., latent, None] * up.W_dec[latent]
    source = type(own)(clean, {RESID[0].name: pushed})
    moved = model.run(clean, read=RESID, edit=[patch(RESID[0], source)]).codes(down).dense() - own.codes(down).dense()
    by_push = moved[:, -1] / tiny * (unembed @ down.W_dec.T)  # only the last token is measured
    torch.testing.assert_close(found[:, :, latent].T, by_push, rtol=1e-3, atol=1e-4)


def test_no_way_between_two_sites_is_refused() -> None:
    model, (up, down), clean, corrupt = straight()
    with pytest.raises(Refusal, match="nothing goes from second to first; name the earlier site first"):
        edge_effects(model, clean, corrupt, down, up, TOTAL, [0])


# ---------------------------------------------------------------- circuits


def chain() -> tuple[HookedModel, list[Dictionary], Arrays, Arrays]:
    """Unit 0 feeds unit 1, which alone is measured; units 2 and 3 do what they like."""
    module = Straight().requires_grad_(False)
    for layer in (module.first, module.second, module.third):
        layer.weight.copy_(torch.eye(4))
        layer.bias.zero_()
    module.second.weight.copy_(torch.tensor([[0, 0, 0, 0], [3.0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    parts: list[Dictionary] = [Linear(s, s, torch.eye(4)).requires_grad_(False) for s in (FIRST, SECOND)]
    return load(module), parts, Arrays((torch.ones(3, 4),)), Arrays((torch.zeros(3, 4),))


UNIT = Measure(lambda t: t[THIRD][:, 1], (THIRD,), "unit 1")


@pytest.mark.parametrize("by", [attributed, integrated])
def test_a_planted_chain_is_the_circuit_and_does_everything(by) -> None:
    model, parts, clean, corrupt = chain()
    found = feature_circuit(model, clean, corrupt, parts, UNIT, node_threshold=0.1, edge_threshold=0.1, by=by)
    first, second = FeatureNode(0, 0), FeatureNode(1, 1)
    assert set(found.nodes) == {first, second} and [(e.up, e.down) for e in found.edges] == [(first, second)]
    assert found.nodes[first] == pytest.approx(-3) and found.edges[0].effect == pytest.approx(-3)
    kept = faithfulness(model, clean, corrupt, parts, UNIT, list(found.nodes))
    assert kept.share == pytest.approx(1) and (kept.whole, kept.nothing) == (3, 0)
    assert faithfulness(model, clean, corrupt, parts, UNIT, [first]).share == pytest.approx(0)
    assert not feature_circuit(model, clean, corrupt, parts, UNIT, node_threshold=4.0, edge_threshold=0.0).nodes


def test_integrated_gradients_see_a_curve_where_one_gradient_sees_a_line() -> None:
    """One unit moves from 1 to 0 and the measure is the square of three times it: -9, of which the slope says -18."""
    model, parts, clean, corrupt = chain()
    corrupt = Arrays((torch.tensor([[0.0, 1.0, 1.0, 1.0]] * 3),))
    args = (model, clean, corrupt, parts, Measure(lambda t: t[THIRD][:, 1] ** 2, (THIRD,), "unit 1 squared"))
    for node in (FeatureNode(0, 0), FeatureNode(1, 1)):
        assert exact(*args, [node]).mean().item() == pytest.approx(-9)
        assert integrated(*args, steps=3).mean(node) == pytest.approx(-9)
        assert attributed(*args).mean(node) == pytest.approx(-18)


@pytest.mark.parametrize("corrupt", [OTHERS, None])
def test_all_nodes_are_the_network_and_none_the_other_one(network: HookedModel, corrupt) -> None:
    parts = coders()
    found = attributed(network, toys.rows(), corrupt, parts, DIFFERENCE)
    kept = faithfulness(network, toys.rows(), corrupt, parts, DIFFERENCE, list(found.nodes()))
    assert kept.share == pytest.approx(1, abs=1e-4)
    if corrupt is not None:
        assert kept.nothing == pytest.approx(DIFFERENCE(network.run(corrupt)).mean().item(), abs=1e-3)


FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2"]  # grouped heads, branches side by side, norms before adding


def small(name: str) -> tuple[HookedModel, list[Dictionary], Tokens, Tokens, Measure]:
    model = zoo.model(name, torch.float64)
    sites = [model.site(s) for s in ("attn_out.0", "mlp_out.0", "resid_post.1")]
    width = model.run(zoo.batch(name), read=["embed"])["embed"].shape[-1]
    parts: list[Dictionary] = [
        SAE(s, width, 20, ReLU(), generator=torch.Generator().manual_seed(i)).double().requires_grad_(False)
        for i, s in enumerate(sites)
    ]
    clean = zoo.batch(name)
    assert isinstance(clean, Tokens)
    return model, parts, clean, Tokens(clean.ids.flip(1), clean.mask), logit_diff(3, 4)


@pytest.mark.parametrize("name", FAMILIES)
def test_in_every_family_all_nodes_are_one_run_and_none_the_other(name: str) -> None:
    """With the whole last residual put back it is the other run; so it is with attention's and the layer's beside."""
    model, parts, clean, corrupt, measure = small(name)
    found = attributed(model, clean, corrupt, parts, measure)
    kept = faithfulness(model, clean, corrupt, parts, measure, list(found.nodes()))
    end = model.run(clean, edit=[patch(parts[2].writes[0], model.run(corrupt, read=list(parts[2].writes)))])
    assert kept.share == pytest.approx(1) and kept.nothing == pytest.approx(measure(end).mean().item())


@pytest.mark.parametrize("name", FAMILIES)
def test_in_every_family_an_edge_is_a_small_push_along_the_way(name: str) -> None:
    """From what attention adds to the last residual, by every way: later attention, norms and MLPs included."""
    model, (up, _, down), clean, corrupt, measure = small(name)
    read = [*up.reads, *down.reads]
    own, other = (model.run(x, read=read) for x in (clean, corrupt))
    found = edge_effects(model, clean, corrupt, up, down, measure, list(range(20)))
    change = other.codes(up).dense() - own.codes(up).dense()
    latent = int(change.abs().sum((0, 1)).argmax())
    push = 1e-3 * change[..., latent, None] * up[latent].direction  # not less: some norms count in single precision

    def codes(sign: int) -> Tensor:
        source = type(own)(clean, {up.writes[0].name: own[up.writes[0]] + sign * push})
        return model.run(clean, read=read, edit=[patch(up.writes[0], source)]).codes(down).dense()

    felt = gradients(model, clean, measure, list(down.writes))[down.writes[0]]
    by_push = ((codes(1) - codes(-1)) / 2e-3 * (felt @ down.directions().write[:, 0].T)).sum(1)
    torch.testing.assert_close(found[:, :, latent].T, by_push, rtol=0.02, atol=1e-4)


def test_thresholds_order_by_size(network: HookedModel) -> None:
    found = attributed(network, toys.rows(), OTHERS, coders(), DIFFERENCE)
    above = found.above(0.05)
    sizes = [abs(found.mean(n)) for n in above]
    assert sizes == sorted(sizes, reverse=True) and min(sizes) > 0.05
    assert all(abs(found.mean(n)) <= 0.05 for n in found.nodes() if n not in above)


def test_what_makes_no_feature_circuit_is_refused(network: HookedModel) -> None:
    rows = toys.rows()
    with pytest.raises(Refusal, match="at least one dictionary"):
        attributed(network, rows, OTHERS, [], DIFFERENCE)
    with pytest.raises(Refusal, match="3 clean rows and 1 corrupt"):
        attributed(network, rows, OTHERS.rows(slice(0, 1)), coders(), DIFFERENCE)
    with pytest.raises(Refusal, match=r"\[5, 5, 5\] clean and \[5, 2, 7\] corrupt"):
        attributed(network, rows, toys.rows(ragged=True), coders(), DIFFERENCE)
    with pytest.raises(Refusal, match="take 0 steps"):
        integrated(network, rows, OTHERS, coders(), DIFFERENCE, steps=0)
    with pytest.raises(Refusal, match="subspaces of rank 2"):
        attributed(network, rows, OTHERS, [Subspace.random(RESID[0], WIDTH, 2)], DIFFERENCE)
    late = Measure(lambda t: t[RESID[0]].sum((1, 2)), (RESID[0],), "an early sum")
    with pytest.raises(Refusal, match="does not depend on resid_post.1"):
        attributed(network, rows, OTHERS, coders(), late)
