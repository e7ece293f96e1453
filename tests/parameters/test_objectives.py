"""What a decomposition should be, term by term."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.interventions.masks import Adversary
from microtome.parameters.addresses import find
from microtome.parameters.begin import Drawn, begun
from microtome.parameters.decomposed import Decomposed
from microtome.parameters.gates import HingeGates, LowerLeaky, MLPGates, Shape, cost_of, importance_of
from microtome.parameters.objectives import (
    Adversarial,
    Faithful,
    Layerwise,
    Lp,
    Minimal,
    Persistent,
    SmoothL0,
    Stochastic,
    Subset,
    Weighted,
    divergence,
    squared,
)  # fmt: skip
from microtome.toys import Superposition

LEAD = (2,)


@pytest.fixture
def learned(generator: torch.Generator) -> Decomposed:
    toy = Superposition(4, 3, generator=generator, seeds=2).untied()
    size = dict.fromkeys(find(toy, ["encoder", "decoder"]), 6)
    return begun(toy, list(size), torch.rand(2, 9, 4), size, Drawn(), generator, LEAD).with_gates(
        HingeGates(), generator
    )


@pytest.mark.parametrize("term", [Stochastic(), Layerwise(), Subset(), Adversarial(), Adversarial(Adversary(3, 0.3))])
def test_nothing_is_missed_where_everything_is_important(learned: Decomposed, term, generator: torch.Generator) -> None:
    for gate in learned.gates:
        gate.offset.data.fill_(9.0)
    missed = (1.0 * term).of(squared, generator).by_seed(learned, torch.rand(2, 5, 4))
    assert missed[term.name].shape == LEAD
    torch.testing.assert_close(missed[term.name], torch.zeros(LEAD), atol=1e-8, rtol=0)


def test_an_adversary_misses_at_least_what_chance_does(learned: Decomposed, generator: torch.Generator) -> None:
    for gate in learned.gates:
        gate.offset.data.fill_(-9.0)
    x = torch.rand(2, 50, 4)
    both = (Stochastic() + 1.0 * Adversarial(Adversary(10, 0.2))).of(squared, generator).by_seed(learned, x)
    assert (both["adversarial"] > both["stochastic"]).all() and (both["stochastic"] > 0).all()


def test_an_adversary_that_keeps_its_place_gets_there_in_small_steps(
    learned: Decomposed, generator: torch.Generator
) -> None:
    for gate in learned.gates:
        gate.offset.data.fill_(-9.0)
    x = torch.rand(2, 20, 4)
    objective = (1.0 * Persistent(Adversary(1, 0.1))).of(squared, generator)
    first = objective.by_seed(learned, x)["persistent"]
    for _ in range(20):
        last = objective.by_seed(learned, x)["persistent"]
    assert last.sum() > first.sum()
    other = (1.0 * Persistent(Adversary(1, 0.1))).of(squared, generator)
    other.load_state_dict(objective.state_dict())
    torch.testing.assert_close(other.by_seed(learned, x), objective.by_seed(learned, x))
    assert other.by_seed(learned, x[:, :3])["persistent"].isfinite().all()  # fewer rows, the same place


def test_weighted_rows_are_rows_that_come_so_often(learned: Decomposed) -> None:
    x = torch.rand(2, 3, 4)
    often = torch.cat((x[:, :1], x[:, :1], x), 1)
    once = Weighted(x, torch.tensor([0.6, 0.2, 0.2]))
    terms = Faithful() + 1.0 * Minimal()
    for name, value in terms.by_seed(learned, once).items():
        torch.testing.assert_close(value, terms.by_seed(learned, often)[name])


def test_powers_have_finite_slopes_at_zero_and_move_with_the_steps() -> None:
    for power in (Lp(0.4), Lp(2.0, 0.4, 10), SmoothL0(steps=10)):
        g = torch.zeros(3, requires_grad=True)
        power(g, 10).sum().backward()
        assert g.grad is not None and g.grad.isfinite().all()
    g = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(Lp(2.0, 1.0, 10)(g, 0), g**2, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(Lp(2.0, 1.0, 10)(g, 10), g)
    torch.testing.assert_close(SmoothL0(1.0, 1e-3, 4)(g, 4), torch.tensor([0.0, 1.0, 1.0]), atol=1e-5, rtol=0)
    with pytest.raises(Refusal, match="-1"):
        Lp(-1.0)


def test_two_rare_mechanisms_in_one_part_cost_more_than_each_in_its_own(learned: Decomposed) -> None:
    shared, apart = torch.zeros(2, 8, 6), torch.zeros(2, 8, 6)
    shared[:, :4, 0] = 1
    apart[:, :2, 0] = apart[:, 2:4, 1] = 1
    costs = []
    for z in (shared, apart):
        look = learned.look(torch.rand(2, 8, 4))._replace(gate={"encoder": z})
        learned.look = lambda x, look=look: look  # pyright: ignore
        costs.append([float(Minimal(frequency=f)(moment(learned, look)).sum()) for f in (0.0, 1.0)])
    assert costs[0][0] == costs[1][0] and costs[0][1] > costs[1][1]


def moment(learned: Decomposed, look):
    from microtome.parameters.objectives import Moment

    return Moment(learned, torch.rand(2, 8, 4), look, None, 0, None, squared)


def test_divergence_is_none_of_a_distribution_from_itself() -> None:
    logits = torch.randn(4, 7)
    torch.testing.assert_close(divergence(logits + 3, logits), torch.zeros(4), atol=1e-6, rtol=0)
    assert (divergence(torch.randn(4, 7), logits) > 0).all()


def test_gates_lie_between_zero_and_one_and_leak_only_upward() -> None:
    z = torch.tensor([-1.0, -1.0, 0.5, 2.0], requires_grad=True)
    g = LowerLeaky.apply(z)
    assert g.tolist() == [0.0, 0.0, 0.5, 1.0]
    g.backward(torch.tensor([1.0, -1.0, 1.0, 1.0]))  # down, up
    torch.testing.assert_close(z.grad, torch.tensor([0.0, -0.01, 1.0, 0.0]))
    torch.testing.assert_close(cost_of(z.detach()), torch.tensor([0.0, 0.0, 0.5, 1.01]))


@pytest.mark.parametrize("kind", [MLPGates(3), HingeGates()])
def test_gates_are_each_parts_own_and_each_seeds(kind, generator: torch.Generator) -> None:
    gate = kind.make(Shape((2,), 3), generator)
    for weight in gate.parameters():
        weight.data += torch.randn(weight.shape)
    h = torch.randn(2, 5, 3)
    z = gate(h)
    moved = h.clone()
    moved[0, :, 1] += 1
    assert (gate(moved) != z).nonzero()[:, [0, 2]].unique(dim=0).tolist() == [[0, 1]]
    torch.testing.assert_close(gate.of_seed(1)(h[1]), z[1])
    torch.testing.assert_close(gate(h[:, :, None])[:, :, 0], z)  # with positions
    assert ((importance_of(z) >= 0) & (importance_of(z) <= 1)).all()
