"""Parts and latents under the same tests: what is claimed of the worst, and latents as parts of a weight."""

import json

import pytest
import torch

from microtome.core.linear import Coordinates
from microtome.studies.spd_beside import AS_PARTS, HIDDEN, LATENTS, PARTS, Beside, Stand, as_parts, colour
from microtome.toys import Superposition


def stand(kind: str, harm: float, matter: int) -> Stand:
    return Stand(f"{kind} {harm}", kind, harm, harm, {20: harm, 40: 2 * harm}, 1.0, matter, [[1.0, 0.0]])


def test_claims_are_about_the_autoencoder_that_comes_nearest_to_breaking_them() -> None:
    stands = [stand(PARTS, 0.05, 2), stand(PARTS, 0.01, 2)]
    stands += [stand(LATENTS, 0.2, 3), stand(LATENTS, 0.5, 9), stand(AS_PARTS, 0.9, 9), stand(AS_PARTS, 0.6, 9)]
    both = Beside(stands, [[0.0, 1.0]])
    assert [c.found for c in both.claims(2)] == pytest.approx([1.5, 0.2 / 0.05, 0.6 / 0.05, 0.1])
    assert Beside.read(json.loads(json.dumps(both.plain()))) == both


def test_latents_that_read_and_write_one_axis_each_are_all_of_the_identity(generator: torch.Generator) -> None:
    toy = Superposition(4, 3, generator=generator).untied().with_between(torch.eye(3))
    parts = as_parts(Coordinates(HIDDEN, 3), toy)
    torch.testing.assert_close(parts.rests()[0], torch.zeros(3, 3))
    skewed = as_parts(Coordinates(HIDDEN, 3), toy.with_between(2 * torch.eye(3)))
    torch.testing.assert_close(skewed.rests()[0], torch.eye(3))


def test_latents_have_one_colour_in_both_of_their_roles() -> None:
    kinds = [PARTS, PARTS, LATENTS, AS_PARTS, LATENTS, AS_PARTS]
    assert [colour(kinds, i) for i in range(6)] == [0, 1, 2, 2, 3, 3]
