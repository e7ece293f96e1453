"""From a network to its parts, by every method; what comes back is a dictionary like any other."""

import pytest
import torch
from torch import nn

from microtome.core.edit import ablate, splice
from microtome.core.errors import NoSuchComponent, NotFinite, Refusal
from microtome.core.inputs import Arrays
from microtome.models.load import load
from microtome.parameters.apd import APD
from microtome.parameters.clustering import clusters
from microtome.parameters.compare import compare
from microtome.parameters.decompose import decompose, decompose_each
from microtome.parameters.matching import columns, one_hot
from microtome.parameters.source import Given, Occupied
from microtome.parameters.spd import SPD
from microtome.parameters.svd import SVD
from microtome.parameters.vpd import VPD
from microtome.toys import Sparse, Superposition

BOTH = ["encoder", "decoder"]
DATA = Sparse(4, 0.2)


def toy(seeds: int | None = None) -> Superposition:
    return Superposition(4, 3, generator=torch.Generator().manual_seed(1), seeds=seeds).untied()


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


@pytest.mark.parametrize(
    "method",
    [SPD(parts=5, steps=3, rows=16), VPD(parts=5, steps=3, rows=16), SVD(), APD(parts=4, k=1.0, steps=3, rows=16)],
    ids=lambda m: type(m).__name__,
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_every_method_gives_parts_that_sum_to_the_weights(method, seeds: int) -> None:
    model = toy()
    found = decompose(model, DATA, BOTH, method=method, seeds=seeds)
    assert len(found.losses) == seeds and found.losses[found.kept] == min(found.losses)
    for name in BOTH:
        torch.testing.assert_close(found.at(name).weight(), model.get_parameter(name).detach())
    again = decompose(model, DATA, BOTH, method=method, seeds=seeds)
    assert again.losses == found.losses  # the same seed, the same parts


def test_networks_side_by_side_each_keep_their_best() -> None:
    networks = toy(seeds=2)
    found = decompose_each(networks, DATA, BOTH, method=SPD(parts=5, steps=2, rows=16), seeds=2)
    assert len(found) == 2
    for i, one in enumerate(found):
        torch.testing.assert_close(one.at("encoder").weight(), networks.one(i).encoder.detach())


def test_what_is_alone_is_found_and_stays_found() -> None:
    """As many dimensions as features: every feature has a part of its own."""
    model = Superposition(3, 3, generator=torch.Generator(), biased=False)
    model.encoder.data = torch.eye(3)
    model = model.untied()
    found = decompose(model, Sparse(3, 0.1), BOTH, method=SPD(parts=4, steps=40, rows=32), seeds=2)
    assert columns(found.at("encoder").matrices(), torch.eye(3)).worst < 0.25
    importance = found.at("encoder").importance(one_hot(3)).dense()
    assert (importance.max(1).values > 0.9).all()


def test_parts_of_a_layer_ablate_and_splice_like_any_component() -> None:
    module = layers()
    found = decompose(module, Given(torch.rand(64, 4)), "0", method=SPD(parts=6, steps=2, rows=16), seeds=1)
    parts, masks = found.at("0.weight"), {"0.weight": (torch.arange(6) != 2).float()}
    model, x = load(module), Arrays((torch.rand(5, 4),))
    output = model.site("2")
    with torch.no_grad():
        plain = model.run(x, read=[output])[output]
        torch.testing.assert_close(model.run(x, read=[output], edit=[splice(parts)])[output], plain)
        without = torch.func.functional_call(module, found.weights(masks), (x.tensors[0],))
        torch.testing.assert_close(model.run(x, read=[output], edit=[ablate(parts[2])])[output], without)
    assert compare(parts, parts).pairs[:, 0].equal(compare(parts, parts).pairs[:, 1])


@pytest.mark.parametrize(("module", "word"), [(nn.Embedding(5, 3), "ids"), (nn.Conv2d(2, 3, 3), "patches")])
def test_what_reads_no_vector_is_no_dictionary_and_its_weight_is_edited_all_the_same(module, word: str) -> None:
    x = torch.arange(5) if word == "ids" else torch.rand(4, 2, 5, 5)
    found = decompose(module, Given(x), "weight", method=SVD(), seeds=1)
    with pytest.raises(Refusal, match=f"read {word}"):
        found.at("weight")
    half = torch.func.functional_call(module, found.weights({"weight": torch.full((3,), 0.5)}), (x,))
    torch.testing.assert_close(half, torch.func.functional_call(module, {"weight": module.weight / 2}, (x,)))


def test_parts_are_the_same_parts_with_both_signs_turned() -> None:
    found = decompose(layers(), Given(torch.rand(64, 4)), "0", method=SVD(), seeds=1).at("0.weight")
    other = decompose(layers(), Given(torch.rand(64, 4)), "0", method=SVD(), seeds=1).at("0.weight")
    other.read, other.write = -found.read.flip(0), -2 * found.write.flip(0)
    alike = compare(found, other)
    assert alike.mean == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(alike.length, torch.full_like(alike.length, 2.0))


def test_groups_that_are_always_active_together_are_merged() -> None:
    torch.manual_seed(0)
    one, other = torch.rand(400) < 0.1, torch.rand(400) < 0.1
    active = torch.stack((one, one, other, other, torch.zeros(400, dtype=torch.bool)), 1)
    assert sorted(clusters(active, 1.0).members) == [(0, 1), (2, 3)]
    assert len(clusters(active, 0.0).members) == 1  # one group needs no telling apart
    assert clusters(active, 1.0).bits < 2 * float(active.float().mean(0).sum())
    with pytest.raises(Refusal, match="-1"):
        clusters(active, -1.0)


def test_empty_rows_are_drawn_once_and_count_as_often_as_they_come(generator: torch.Generator) -> None:
    feed = Occupied(Sparse(3, 0.1), generator)
    batch = feed.batch(64, (2,), generator)
    assert not batch.x[:, 0].any() and (batch.x[:, 1:] != 0).any(-1).all()
    assert float(batch.weight.sum()) == pytest.approx(1, abs=1e-5)
    assert float(batch.weight[0]) == pytest.approx(0.9**3, abs=0.01)
    mean = torch.einsum("srf,r->sf", feed.batch(40_000, (1,), generator).x, feed.batch(40_000, (1,), generator).weight)
    torch.testing.assert_close(mean, torch.full((1, 3), 0.05), atol=2e-3, rtol=0)


@pytest.mark.parametrize("empty", [0, 1])
def test_rows_of_ids_weigh_as_rows_of_numbers_do(empty: int, generator: torch.Generator) -> None:
    rows = torch.cat((torch.ones(3, 2), torch.zeros(empty, 2)))
    ids, numbers = (Occupied(Given(x), generator).batch(8, (), generator) for x in (rows.long(), rows))
    assert not ids.x.is_floating_point() and float(ids.weight.sum()) == pytest.approx(1)
    torch.testing.assert_close(ids.weight, numbers.weight, atol=0.02, rtol=0)


def test_what_cannot_be_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match="0 seeds"):
        decompose(toy(), DATA, BOTH, method=SVD(), seeds=0)
    with pytest.raises(Refusal, match="2 networks"):
        decompose(toy(2), DATA, BOTH, method=SVD())
    with pytest.raises(Refusal, match="use decompose"):
        decompose_each(toy(), DATA, BOTH, method=SVD())
    found = decompose(toy(), DATA, "encoder", method=SVD(), seeds=1)
    with pytest.raises(NoSuchComponent, match="there are: encoder"):
        found.at("decoder")
    with pytest.raises(Refusal, match="'decoder' was decomposed"):
        found.weights({"decoder": torch.ones(3)})
    with pytest.raises(NotFinite):
        Given(torch.tensor([[float("nan")]]))
    with pytest.raises(Refusal, match="all of 100,000 rows"):
        Occupied(Given(torch.zeros(2, 2)), generator)
    for wrong in ({"k": 0.0}, {"k": 9.0}, {"power": 0.0}):
        with pytest.raises(Refusal):
            APD(parts=5, **wrong)
