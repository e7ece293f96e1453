"""Parts across all weights, found by their attributions."""

import torch
from torch.func import functional_call

from microtome.parameters.addresses import find
from microtome.parameters.apd import APD, attributions, drawn, lengths, matrices, most_attributed, of_parts, scrubbed
from microtome.parameters.decomposed import Decomposed, Factors
from microtome.toys import Superposition


def made(generator: torch.Generator, parts: int = 3, rank: int = 2) -> Decomposed:
    toy = Superposition(4, 3, generator=generator).untied()
    places = find(toy, ["encoder", "decoder"])
    return Decomposed(toy, places, drawn(toy, places, parts, rank, (), generator))


def test_an_attribution_is_the_slope_along_the_part_squared_over_outputs(generator: torch.Generator) -> None:
    learned, x = made(generator), torch.rand(5, 4)
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
