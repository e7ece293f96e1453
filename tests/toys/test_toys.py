"""Every toy computes its equation, knows its truth, and has the sites that it names."""

import numpy as np
import pytest
import torch

from microtome.core.errors import Refusal
from microtome.core.inputs import Arrays
from microtome.models.load import load
from microtome.toys.absolute_value import AbsoluteValue
from microtome.toys.gated_trigonometry import GatedTrigonometry
from microtome.toys.reduced_rank import ReducedRank, learning_coefficient
from microtome.toys.residual_mlp import ResidualMLP
from microtome.toys.superposition import Superposition
from microtome.toys.toy import Toy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


MAKE = {
    "superposition": lambda seeds: Superposition(6, 3, generator=generator(), seeds=seeds),
    "absolute value": lambda seeds: AbsoluteValue(6, 4, generator=generator(), seeds=seeds),
    "residual": lambda seeds: ResidualMLP(6, 9, 4, 2, generator=generator(), seeds=seeds, biased=True),
    "unmixed": lambda seeds: ResidualMLP(6, 9, 4, generator=generator(), seeds=seeds, mixing=False),
    "reduced rank": lambda seeds: ReducedRank(6, 4, 5, 2, generator=generator(), seeds=seeds, biased=True),
}
X = torch.rand(7, 6, generator=generator(1)) * 2 - 1


def shaken(toy: Toy) -> Toy:
    """With every weight that is learned moved at random."""
    with torch.no_grad():
        for weight in toy.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator(2)))
    return toy


@pytest.mark.parametrize("name", MAKE)
def test_a_seed_is_the_network_alone(name: str) -> None:
    many = shaken(MAKE[name](3))
    for i in range(3):
        assert torch.allclose(many(X)[i], many.one(i)(X), atol=1e-5)
        assert torch.allclose(many(X.expand(3, 7, 6))[i], many.one(i)(X), atol=1e-5)
        assert torch.allclose(many.target(X.expand(3, 7, 6))[i], many.one(i).target(X), atol=1e-5)
    with pytest.raises(Refusal, match="these are 3 networks"):
        many.truth()


@pytest.mark.parametrize("name", MAKE)
def test_every_site_is_met(name: str) -> None:
    toy = MAKE[name](None)
    model = load(toy, sites=toy.sites)
    trace = model.run(Arrays((X,)), read=model.sites())
    assert torch.equal(trace["y"], toy(X)) and set(toy.sites) == set(trace)


@pytest.mark.parametrize("name", ["absolute value", "reduced rank"])
def test_the_truth_is_the_target(name: str) -> None:
    toy = MAKE[name](None)
    assert torch.allclose(toy.truth().reconstruct(X), toy.target(X), atol=1e-5)


def test_a_residual_mlp_computes_its_equation_and_its_truth_is_what_is_added() -> None:
    toy = shaken(MAKE["residual"](None))
    r = X @ toy.embed.T
    for layer in toy.layers:
        r = r + (r @ layer.w_in.T + layer.b_in).clamp(min=0) @ layer.w_out.T + layer.b_out
    assert torch.allclose(toy(X), r @ toy.embed, atol=1e-5)
    assert torch.allclose(X + toy.truth().reconstruct(X), toy.target(X))


@pytest.mark.parametrize("seeds", [None, 2])
def test_a_residual_mlp_is_the_same_in_the_dimensions_that_features_have(seeds: int | None) -> None:
    toy = shaken(ResidualMLP(4, 30, 6, 1, generator=generator(), seeds=seeds, biased=True))
    narrow = toy.narrowed()
    assert narrow.embed.shape[-2] == 4 and not narrow.embed.requires_grad
    assert torch.allclose(narrow(X[:, :4]), toy(X[:, :4]), atol=1e-4)


def test_a_narrowed_residual_mlp_is_narrow_for_good() -> None:
    """Narrowing it once more changes nothing, however many layers there are."""
    narrow = shaken(ResidualMLP(4, 30, 6, 2, generator=generator()).narrowed())
    assert torch.allclose(narrow.narrowed()(X[:, :4]), narrow(X[:, :4]), atol=1e-4)


def test_without_mixing_the_embedding_gives_each_feature_back() -> None:
    toy = MAKE["unmixed"](2)
    for layer in toy.layers:
        torch.nn.init.zeros_(layer.w_out)
    assert torch.allclose(toy(X), X.expand(2, 7, 6), atol=1e-5)
    mixed = MAKE["residual"](None)
    assert not torch.allclose(mixed.embed.T @ mixed.embed, torch.eye(6), atol=0.05)


def test_a_toy_of_reduced_rank_is_built_at_the_truth() -> None:
    toy = MAKE["reduced rank"](2)
    assert torch.allclose(toy(X), toy.target(X), atol=1e-5)
    assert (torch.linalg.matrix_rank(toy.teacher) == 2).all()


def test_the_learning_coefficient_in_cases_that_are_known() -> None:
    assert learning_coefficient(1, 1, 1, 0) == 0.5  # a b = 0: a crossing of two lines
    assert learning_coefficient(4, 2, 4, 2) == (2 * 4 + 2 * 4 - 2 * 2) / 2  # full rank: half the dimension
    assert learning_coefficient(3, 9, 2, 1) == 3  # so many hidden that the product may be anything
    for m, h, n in np.ndindex(5, 5, 5):
        for r in range(min(m, h, n) + 1):
            found = learning_coefficient(m, h, n, r)
            assert found == learning_coefficient(n, h, m, r) and r * (m + n - r) / 2 <= found <= m * n / 2


# ---------------------------------------------------------------- gated trigonometric functions


def test_gated_functions_are_their_interpolation() -> None:
    toy = GatedTrigonometry(3, 10, generator=generator())
    x = toy.draw(200, generator(1), probability=0.5)
    want = np.zeros(200)
    for i, heights in enumerate(toy.heights.numpy()):
        want += x[:, 1 + i].numpy() * np.interp(x[:, 0].numpy(), toy.places().numpy(), heights)
    assert np.allclose(toy(x)[:, 0].detach().numpy(), want, atol=1e-4)
    assert torch.allclose(toy.target(x), toy(x), atol=1e-4)


def test_parts_of_gated_functions_sum_to_the_weights_and_one_alone_makes_its_function() -> None:
    toy = GatedTrigonometry(3, 4, generator=generator())
    parts = toy.parts()
    assert all(torch.equal(part.sum(0), toy.get_parameter(name)) for name, part in parts.items())
    x = toy.draw(50, generator(1), probability=1.0)
    for i in range(3):
        alone = torch.func.functional_call(toy, {name: part[i] for name, part in parts.items()}, (x,))
        only = x.clone()
        only[:, 1:] = 0
        only[:, 1 + i] = 1
        assert torch.allclose(alone, toy(only), atol=1e-4)
    assert torch.equal(toy.truth().encode(x).dense(), x[:, 1:])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GatedTrigonometry(3, 5, generator=generator()), "an even number of neurons"),
        (lambda: ReducedRank(3, 2, 3, 3, generator=generator()), "a teacher of rank 3 does not fit .* give 0 to 2"),
        (lambda: ResidualMLP(6, 9, 5, 2, generator=generator()), "5 neurons cannot be shared by 2 layers"),
        (lambda: ResidualMLP(6, 4, 4, generator=generator(), mixing=False), "6 directions in 4 dimensions"),
        (lambda: AbsoluteValue(0, 4, generator=generator()), "0 features, 4 neurons"),
    ],
)
def test_what_cannot_be_is_refused(make, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        make()
