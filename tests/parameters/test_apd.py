"""Parts across all weights, found by their attributions."""

import pytest
import torch
from torch.func import functional_call

from microtome.parameters.addresses import find
from microtome.parameters.apd import (
    APD,
    Objective,
    attributions,
    lengths,
    matrices,
    most_attributed,
    of_parts,
    scrubbed,
)
from microtome.parameters.decomposed import Decomposed, Factors
from microtome.parameters.objectives import Weighted
from microtome.parameters.spanning import Random, Span
from microtome.toys import Superposition


def made(generator: torch.Generator, parts: int = 3, rank: int = 2, tied: bool = False) -> Decomposed:
    toy = Superposition(4, 3, generator=generator)
    toy = toy if tied else toy.untied()
    places = find(toy, ["encoder"] if tied else ["encoder", "decoder"])
    return Decomposed(toy, places, Random().factors(Span(toy, places, parts, rank, ()), torch.rand(2, 4), generator))


@pytest.mark.parametrize("tied", [False, True])
def test_an_attribution_is_the_slope_along_the_part_squared_over_outputs(
    generator: torch.Generator, tied: bool
) -> None:
    learned, x = made(generator, tied=tied), torch.rand(5, 4)
    names, weights = learned.names, [w.clone() for w in learned.weights()]
    expected = torch.zeros(5, 3)
    for row in range(5):
        slopes = torch.autograd.functional.jacobian(
            lambda *w, row=row: functional_call(learned.module, dict(zip(names, w, strict=True)), (x[row : row + 1],))[
                0
            ],
            tuple(weights),
        )
        for part in range(3):
            along = sum((s * matrices(learned, i, 3)[part]).sum((-1, -2)) for i, s in enumerate(slopes))
            expected[row, part] = along.pow(2).sum()
    torch.testing.assert_close(attributions(learned, x, 3), expected.detach(), rtol=1e-4, atol=1e-5)


def test_probes_estimate_the_same_attributions(generator: torch.Generator) -> None:
    """Signs' products with each other are 1 on average, so many probes are near; as many as outputs are these."""
    learned, x = made(generator), torch.rand(5, 4)
    whole = attributions(learned, x, 3)
    torch.testing.assert_close(attributions(learned, x, 3, probes=4), whole)
    many = torch.stack([attributions(learned, x, 3, probes=3, generator=generator) for _ in range(600)])
    error = many.std(0) / 600**0.5
    assert ((many.mean(0) - whole).abs() <= 5 * error + 1e-6).all() and error.max() > 0


def test_so_many_are_used_a_row_on_average_and_none_that_does_nothing() -> None:
    attribution = torch.rand(2, 10, 4)
    assert most_attributed(attribution, 1.3).sum((1, 2)).tolist() == [13.0, 13.0]
    attribution[0, 1:] = 0
    assert most_attributed(attribution, 1.3)[0].sum() == 4


def test_lengths_are_singular_values_where_ranks_are_apart(generator: torch.Generator) -> None:
    learned = made(generator, rank=1)
    for i, length in enumerate(lengths(learned, 3)):
        torch.testing.assert_close(length[:, 0], torch.linalg.svdvals(matrices(learned, i, 3))[:, 0])


def test_leaving_out_what_is_unrelated_does_nothing_and_what_is_related_does(generator: torch.Generator) -> None:
    """Parts that are the truth: one for each feature, in both weights."""
    toy = Superposition(3, 3, generator=generator, biased=False)
    toy.encoder.data = torch.eye(3)
    toy = toy.untied()
    places = find(toy, ["encoder", "decoder"])
    learned = Decomposed(toy, places, {a: Factors(torch.eye(3), torch.eye(3)) for a in places})
    x = torch.eye(3) * 0.7
    used = most_attributed(attributions(learned, x, 3), 1.0)
    assert used.equal(torch.eye(3))
    torch.testing.assert_close(scrubbed(learned, x, used, generator), torch.zeros(3))
    assert (scrubbed(learned, x, used, generator, against=True) > 0.1).all()
    torch.testing.assert_close(learned.run(x, of_parts(learned, used)), toy(x))


def test_its_schedule_rises_and_falls() -> None:
    schedule = APD(steps=100, cosine=True).schedule()
    assert schedule(0) < schedule(10) and schedule(99) < 0.01


def pentagon(generator: torch.Generator, size: float = 1.0) -> Decomposed:
    """Five features in two dimensions, and parts that have this share of their columns: the others share the rest."""
    turns = torch.arange(5) * 2 * torch.pi / 5
    toy = Superposition(5, 2, generator=generator)
    toy.encoder.data, toy.bias.data = torch.stack((turns.cos(), turns.sin())), torch.full((5,), -0.31)
    places = find(toy, "encoder")
    share = size * torch.eye(5) + (1 - size) / 4 * (1 - torch.eye(5))
    left, sizes, right = torch.linalg.svd(toy.encoder.detach() * share[:, None], full_matrices=False)
    write = (left * sizes[:, None]).mT
    return Decomposed(toy, places, {places[0]: Factors(right.flatten(0, 1), write.flatten(0, 1))})


def test_where_parts_must_be_simple_smaller_ones_are_better_and_no_less_faithful(generator: torch.Generator) -> None:
    """What APD calls shrinkage: what one part lacks is free in parts that are not used where it is."""
    x = torch.eye(5).repeat(4, 1) * torch.linspace(0.2, 1, 20)[:, None]
    rows, losses = Weighted(x, torch.full((20,), 0.05)), []
    for size in (1.0, 0.98, 0.5):
        learned = pentagon(generator, size)
        assert float(learned.unfaithful().detach()) < 1e-10
        found = Objective(APD(k=1.0, simple=0.3)).by_seed(learned, rows)
        losses.append(float(torch.stack(list(found.values())).sum().detach()))
    assert losses[1] < losses[0] < losses[2]


def test_rows_count_by_their_weights(generator: torch.Generator) -> None:
    learned, x = made(generator), torch.rand(3, 4)
    objective = Objective(APD(parts=3, k=3.0))
    often = objective.by_seed(learned, Weighted(torch.cat((x, x[:1])), torch.full((4,), 0.25)))
    for name, value in objective.by_seed(learned, Weighted(x, torch.tensor([0.5, 0.25, 0.25]))).items():
        torch.testing.assert_close(value, often[name])
