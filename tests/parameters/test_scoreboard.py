"""The same tests for parts of weights and for latents."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.core.linear import Coordinates
from microtome.core.site import Site
from microtome.interventions.masks import Masks, kept
from microtome.models.load import load
from microtome.parameters.addresses import find
from microtome.parameters.decompose import decompose
from microtome.parameters.decomposed import Decomposed, Factors
from microtome.parameters.gates import HingeGates
from microtome.parameters.scoreboard import scoreboard
from microtome.parameters.spd import SPD
from microtome.parameters.spliced import Spliced
from microtome.parameters.svd import SVD
from microtome.toys import Sparse, Superposition


def toy() -> Superposition:
    made = Superposition(3, 3, generator=torch.Generator(), biased=False)
    made.encoder.data = torch.eye(3)
    return made.untied()


def perfect() -> Decomposed:
    places = find(toy(), ["encoder", "decoder"])
    learned = Decomposed(toy(), places, {a: Factors(torch.eye(3), torch.eye(3)) for a in places})
    learned.with_gates(HingeGates(), torch.Generator())
    for gate in learned.gates:
        gate.size.data.fill_(1e4)
        gate.offset.data.fill_(0.0)
    return learned


def spliced() -> Spliced:
    made = Spliced(
        load(toy(), sites=toy().sites),
        [Coordinates(Site("hidden", "batch d"), 3)],
        Site("y", "batch d"),
        HingeGates(),
        torch.Generator(),
    )
    for gate in made.gates:
        gate.size.data.fill_(1e4)
        gate.offset.data.fill_(0.0)
    return made


@pytest.mark.parametrize("make", [perfect, spliced])
def test_what_is_perfect_passes_every_test_and_its_scale_is_told(make, generator: torch.Generator) -> None:
    x = Sparse(3, 0.3).draw(50, generator)
    score = scoreboard(make(), x, generator=generator, curve=(5, 10))
    for value in (
        score.whole,
        score.importance,
        *score.rounded.values(),
        score.stochastic,
        *score.adversarial.values(),
    ):
        assert value == pytest.approx(0, abs=1e-6)
    assert score.nothing > 0.01 and score.unfaithful == pytest.approx(0, abs=1e-9)
    assert set(score.alive.values()) == {3}
    places = len(score.alive)
    assert score.l0 == pytest.approx(places * float((x > 1e-5).sum(1).float().mean()), abs=1e-5)


@pytest.mark.parametrize("make", [perfect, spliced])
def test_gates_that_say_nothing_matters_are_found_out(make, generator: torch.Generator) -> None:
    learned = make()
    for gate in learned.gates:
        gate.offset.data.fill_(-1e6)
    score = scoreboard(learned, Sparse(3, 0.3).draw(50, generator), generator=generator, curve=(0, 20))
    assert score.l0 == 0 and score.importance == score.nothing > 0
    assert score.adversarial[20] >= score.adversarial[0] and score.adversarial[20] >= score.stochastic


@torch.no_grad()
def test_a_spliced_dictionary_with_all_its_masks_at_one_is_the_network(generator: torch.Generator) -> None:
    learned, x = spliced(), torch.rand(4, 3)
    look = learned.look(x)
    torch.testing.assert_close(learned.run(x, kept(look.importance)), toy()(x))
    (name,) = learned.names
    one = torch.tensor([1.0, 0.0, 1.0]).expand(4, 3)
    torch.testing.assert_close(learned.run(x, Masks({name: one})), toy()(x) * one)


def test_parts_of_a_weight_and_the_same_parts_spliced_are_under_the_same_masks(generator: torch.Generator) -> None:
    """A part is a component that reads before its weight and writes behind it; the rest of the weight goes past both."""
    whole = Superposition(4, 3, generator=generator).untied().with_between(torch.randn(3, 3))
    parts = decompose(whole, Sparse(4, 0.3), "between", method=SPD(parts=5, steps=1, rows=8), seeds=1)
    hidden, mapped, y = (Site(name, "batch d") for name in ("hidden", "mapped", "y"))
    latents = Spliced(load(whole, sites=whole.sites), [parts.at("between", hidden, mapped)], y, HingeGates(), generator)
    x, mask, rest = Sparse(4, 0.3).draw(20, generator), torch.rand(20, 5), torch.ones(20, 1)
    (name,) = latents.names
    with torch.no_grad():
        torch.testing.assert_close(latents.look(x).activation[name], parts.parts.look(x).activation["between"])
        of_parts = parts.parts.run(x, Masks({"between": mask}, {"between": rest}))
        torch.testing.assert_close(latents.run(x, Masks({name: mask}, {name: rest})), of_parts)


def test_what_has_no_single_answer_is_refused(generator: torch.Generator) -> None:
    x = torch.rand(4, 3)
    with pytest.raises(Refusal, match="no gates"):
        scoreboard(decompose(toy(), Sparse(3, 0.3), "encoder", method=SVD(), seeds=1).parts, x, generator=generator)
    two = Superposition(3, 3, generator=generator, seeds=2).untied()
    learned = SPD(parts=3, steps=1, rows=8).learn(two, find(two, "encoder"), Sparse(3, 0.3), (2,), generator)
    with pytest.raises(Refusal, match="several seeds"):
        scoreboard(learned.parts, x, generator=generator)
    with pytest.raises(Refusal, match="two dictionaries"):
        same = Coordinates(Site("hidden", "batch d"), 3)
        Spliced(load(toy(), sites=toy().sites), [same, same], Site("y", "batch d"), HingeGates(), generator)
