"""Many processes make the steps of one: the same losses, weights and counts of silence."""

import pytest
import torch
from torch import Tensor

from tests.dictionaries.parallel import jobs
from tests.dictionaries.parallel.crew import Crew

pytestmark = pytest.mark.timeout(1100)

DIVIDED = ("W_enc", "b_enc", "W_dec", "parts.1.silent")


def whole(found: list[dict], part: str, latent: int) -> dict[str, Tensor]:
    """What the first row of the mesh holds, put together."""
    held = [each[part] for each in found[:latent]]
    return {name: torch.cat([h[name] for h in held]) if name in DIVIDED else held[0][name] for name in held[0]}


def agree(found: list[dict], latent: int, expected: dict, atol: float = 1e-9) -> None:
    for rank, each in enumerate(found):
        assert each["parts"] == found[0]["parts"], "all ranks say the same of a step"
        again = found[rank % latent]
        for name, x in each["learned"].items():
            first = again if name in DIVIDED else found[0]
            assert torch.equal(x, first["learned"][name]), f"{name} is the same wherever it is held"
    assert [step[:2] for step in found[0]["steps"]] == [step[:2] for step in expected["steps"]]
    for mine, theirs in zip(found[0]["parts"], expected["parts"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9)
    for part in ("learned", "objective"):
        for name, x in whole(found, part, latent).items():
            torch.testing.assert_close(x, expected[part][name], rtol=0, atol=atol, msg=f"{part} {name}")


@pytest.mark.parametrize(("latent", "data"), [(2, 1), (1, 2)])
@pytest.mark.parametrize("kind", ["sae", "units of a token", "transcoder", "crosscoder"])
def test_two_processes_equal_one(two: Crew, kind: str, latent: int, data: int) -> None:
    expected = jobs.alone(kind)
    assert expected["parts"][-1]["auxk"] > 0, "dead latents take part"
    agree(two.run(jobs.together, kind=kind, latent=latent, data=data), latent, expected)


@pytest.mark.parametrize(("latent", "data"), [(2, 1), (1, 2)])
def test_the_norm_that_is_clipped_is_that_of_all_gradients(two: Crew, latent: int, data: int) -> None:
    agree(two.run(jobs.together, kind="sae", latent=latent, data=data, clip=0.01), latent, jobs.alone("sae", clip=0.01))


@pytest.mark.parametrize("k_aux", [1, 4, 5, 40])
def test_any_number_of_dead_latents_may_be_kept(two: Crew, k_aux: int) -> None:
    agree(two.run(jobs.together, kind="sae", latent=2, data=1, k_aux=k_aux), 2, jobs.alone("sae", k_aux=k_aux))


def test_without_revival_nothing_is_counted(two: Crew) -> None:
    agree(two.run(jobs.together, kind="sae", latent=2, data=1, aux=False), 2, jobs.alone("sae", aux=False))


@pytest.mark.slow
def test_four_processes_on_both_axes_equal_one(four: Crew) -> None:
    agree(four.run(jobs.together, kind="sae", latent=2, data=2, clip=0.5), 2, jobs.alone("sae", clip=0.5))


def test_codes_of_the_ranks_side_by_side_are_those_of_the_whole(two: Crew) -> None:
    sae, x = jobs.made("sae"), jobs.batches(1)[0][jobs.A]
    found = two.run(jobs.encoded, latent=2)
    torch.testing.assert_close(torch.cat([each["codes"] for each in found], -1), sae.encode(x).dense())
    for each in found:
        torch.testing.assert_close(each["made"], sae.reconstruct(x))


@pytest.mark.parametrize(("latent", "data"), [(2, 1), (1, 2)])
def test_a_bad_number_in_the_rows_of_one_stops_all_before_their_weights_move(two: Crew, latent: int, data: int) -> None:
    for each in two.run(jobs.infinite, latent=latent, data=data):
        assert "step 1: the loss is" in each["said"] and each["kept"]


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("a width that does not divide", "width 41 does not divide over 2 ranks; take 40, or other ranks"),
        ("axes that do not multiply", "data 2 times latent 3 are not the 2 processes there are; choose others"),
        ("a whole dictionary", "these latents are not divided over the mesh; fit shard_of(dictionary, mesh.latent)"),
        ("silence of all latents", "AuxK counts 40 latents, and this rank holds 20; give AuxK(len(shard))"),
        ("k beyond the width", "k is 5, more than the 4 components there are"),
    ],
)
def test_a_mistake_is_answered_on_every_rank(two: Crew, mistake: str, sentence: str) -> None:
    assert [each["said"] for each in two.run(jobs.refused, latent=2, data=1, mistake=mistake)] == [sentence] * 2
