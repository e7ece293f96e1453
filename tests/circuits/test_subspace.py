"""A planted subspace is found by swapping it; a subspace is a component of rank r like any other."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from microtome.circuits.interchange import Counterfactuals, Interchange, interchange_accuracy, swap
from microtome.circuits.subspace import BlockCodes, CounterfactualLoss, Subspace, principal_angles
from microtome.core.codes import DenseCodes
from microtome.core.edit import ablate, clamp, masked, project_out, scale
from microtome.core.effects import effects
from microtome.core.errors import Refusal
from microtome.core.fit import fit
from microtome.core.inputs import Arrays
from microtome.core.measure import cross_entropy
from microtome.core.site import Site
from microtome.data.pair_files import read_prompts
from microtome.data.pairs import Prompt, tokenized
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from tests import toys
from tests.toys import WIDTH

RESID = Site("resid_post.0")
D, RANK = 10, 2
HIDDEN, LOGITS = Site("hidden", "batch d"), Site("read", "batch vocab")


class Planted(nn.Module):
    """Two numbers stand in a plane of a hidden layer, other numbers in the rest; the answer is the plane's quadrant."""

    def __init__(self, turn: Tensor) -> None:
        super().__init__()
        self.hidden, self.read = nn.Linear(D, D, bias=False), nn.Linear(D, 4, bias=False)
        corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        self.hidden.weight.data = turn
        self.read.weight.data = corners @ turn[:, :RANK].T

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.hidden(x))


def planted() -> tuple[HookedModel, Tensor]:
    turn = torch.linalg.qr(torch.randn(D, D)).Q
    return load(Planted(turn).requires_grad_(False)), turn[:, :RANK].T


def counterfactuals(rows: int) -> Counterfactuals:
    base, source = torch.randn(2, rows, D)
    wanted = 2 * (source[:, 0] < 0) + (source[:, 1] < 0)
    return Counterfactuals(Arrays((base,)), Arrays((source,)), wanted.long())


def test_the_planted_subspace_is_found_and_a_random_one_is_not_it(generator: torch.Generator) -> None:
    model, truth = planted()
    found, chance = (Subspace.random(HIDDEN, D, RANK, generator=generator) for _ in range(2))
    batches = counterfactuals(1024).batches(128, epochs=25, generator=generator)
    for _ in fit(found, batches, CounterfactualLoss(model, logits=LOGITS), lr=0.03):
        pass
    unseen = counterfactuals(500)
    learned, random, nothing = (
        interchange_accuracy(model, unseen, swaps, logits=LOGITS)
        for swaps in ([Interchange(found[0])], [Interchange(chance[0])], [])
    )
    assert principal_angles(found.basis.detach(), truth).max() < 0.1
    assert principal_angles(chance.basis.detach(), truth).max() > 0.5
    assert learned.interval[0] > 0.9 > 0.7 > random.interval[1] and nothing.interval[1] < 0.35


def test_the_true_subspace_and_the_whole_site_give_every_counterfactual_answer() -> None:
    model, truth = planted()
    data = counterfactuals(200)
    for what in (Subspace(HIDDEN, truth)[0], HIDDEN):
        assert interchange_accuracy(model, data, [Interchange(what)], logits=LOGITS).value == 1.0


def test_the_search_works_at_a_place_of_a_text(network: HookedModel, generator: torch.Generator) -> None:
    """Swapping everything at the last token makes the source's answer, so the loss falls towards its own."""
    source = toys.rows()
    wanted = network.run(source)["logits"][:, -1].argmax(-1)
    data = Counterfactuals(toys.rows(ragged=True), source, wanted)
    subspace = Subspace.random(Site("resid_post.1"), WIDTH, WIDTH - 1, generator=generator)
    loss = CounterfactualLoss(network, here=-1)
    steps = [step.loss for step in fit(subspace, [data] * 60, loss, lr=0.05)]
    assert steps[-1] < steps[0]
    torch.testing.assert_close(subspace.basis @ subspace.basis.T, torch.eye(WIDTH - 1), atol=1e-5, rtol=0)


def test_one_direction_of_a_real_model_carries_he_and_she_for_names_it_was_not_fitted_on(
    shared_data: Path, generator: torch.Generator
) -> None:
    model = load(shared_data / "stories260k-hf", verify=False)
    given = read_prompts(shared_data / "circuit-prompts" / "tinystories_gender_pronoun.json")
    new = [{"Lily", "Amy", "Jack"} & {p.clean.split()[0], p.corrupt.split()[0]} != set() for p in given]
    seen, unseen = (
        pronouns(model, [p for p, n in zip(given, new, strict=True) if n == which]) for which in (False, True)
    )
    site = model.site("resid_post.4")  # the last
    found, chance = (Subspace.random(site, 64, 1, generator=generator) for _ in range(2))
    for _ in fit(found, seen.batches(16, epochs=15, generator=generator), CounterfactualLoss(model, here=-1), lr=0.03):
        pass
    learned, random = (interchange_accuracy(model, unseen, [Interchange(each[0], here=-1)]) for each in (found, chance))
    assert learned.interval[0] > 0.8 and random.interval[1] < 0.4


def pronouns(model: HookedModel, given: list[Prompt]) -> Counterfactuals:
    pairs = tokenized(given, model.encode, context=512).aligned()
    return Counterfactuals(pairs.clean, pairs.corrupt, pairs.wrong)


def test_a_swap_is_the_formula(network: HookedModel) -> None:
    subspace = Subspace.random(RESID, WIDTH, 3).requires_grad_(False)
    base, source = (network.run(x, read=[RESID]) for x in (toys.rows(), toys.rows().rows(slice(0, 1)).repeat(3)))
    r = subspace.directions().read[0]
    torch.testing.assert_close(r @ r.T, torch.eye(3), atol=1e-5, rtol=0)
    left = network.run(toys.rows(), read=[RESID], edit=[swap(subspace[0], source)])[RESID]
    torch.testing.assert_close(left, base[RESID] + (source[RESID] - base[RESID]) @ r.T @ r, atol=1e-5, rtol=1e-5)


def test_a_subspace_of_one_direction_is_that_direction(network: HookedModel) -> None:
    direction = torch.randn(WIDTH)
    line = Subspace(RESID, direction[None]).requires_grad_(False)
    away = [network.run(toys.rows(), edit=[e])["logits"] for e in (ablate(line[0]), project_out(direction, RESID))]
    torch.testing.assert_close(*away, atol=1e-5, rtol=1e-5)


def test_a_component_of_higher_rank_is_ablated_scaled_and_masked_whole(network: HookedModel) -> None:
    plane = Subspace.random(RESID, WIDTH, 2).requires_grad_(False)
    x = network.run(toys.rows(), read=[RESID])[RESID]
    inside = x @ plane.basis.T @ plane.basis
    for edit, wanted in (
        (ablate(plane[0]), x - inside),
        (scale(plane[0], 3.0), x + 2 * inside),
        (masked(plane, torch.tensor([0.0])), x - inside),
    ):
        left = network.run(toys.rows(), read=[RESID], edit=[edit])[RESID]
        torch.testing.assert_close(left, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plane[0].activity(x), inside.norm(dim=-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plane.reconstruct(x), inside, atol=1e-5, rtol=1e-5)
    with pytest.raises(Refusal, match="writes a subspace of rank 2"):
        network.run(toys.rows(), edit=[clamp(plane[0], 1.0)])


def test_many_edits_of_a_subspace_share_a_forward(network: HookedModel) -> None:
    plane = Subspace.random(RESID, WIDTH, 2).requires_grad_(False)
    source = network.run(toys.rows(ragged=True).rows(slice(0, 1)).repeat(3), read=[RESID])
    edits = [Interchange(plane[0], here=p).edit(toys.rows(), source) for p in (0, 2, -1)]
    found = effects(network, toys.rows(), edits, cross_entropy())
    for edit, after in zip(edits, found.after, strict=True):
        torch.testing.assert_close(cross_entropy()(network.run(toys.rows(), edit=[edit])), after, atol=1e-5, rtol=1e-5)


def test_codes_with_coordinates_have_the_face_of_their_lengths() -> None:
    codes = BlockCodes(torch.randn(2, 3, 4, 5))
    lengths = DenseCodes(codes.coordinates.norm(dim=-1))
    assert codes.shape == lengths.shape and codes.width == 4
    weights, by = torch.randn(4, 6), torch.rand(4)
    assert torch.equal(codes.dense(), lengths.dense()) and torch.equal(codes.of(1), lengths.of(1))
    assert torch.equal(codes.times(weights), lengths.times(weights))
    assert torch.equal(codes.top(2).values, lengths.top(2).values) and len(list(codes)) == 24
    torch.testing.assert_close(codes.scaled(by).dense(), lengths.scaled(by).dense())
    sizes = torch.rand(2, 3)
    torch.testing.assert_close(codes.sized(sizes).dense(), lengths.sized(sizes).dense())
    assert torch.equal(codes.part(1, 3).dense(), lengths.dense()[..., 1:3])


def test_angles_between_subspaces() -> None:
    frame = torch.linalg.qr(torch.randn(6, 6)).Q
    small = torch.tensor(1e-6).double()
    tilted = frame[0].double() * small.cos() + frame[2].double() * small.sin()
    one, other = frame[:2], torch.stack([frame[1].double(), tilted])
    angles = principal_angles(one.double(), other)
    assert angles[0] < 1e-7 and 5e-7 < angles[1] < 2e-6  # beyond what cosines can tell
    torch.testing.assert_close(
        principal_angles(frame[:2], frame[2:5]), torch.full((2,), torch.pi / 2).double(), atol=1e-6, rtol=0
    )
    assert principal_angles(torch.randn(2, 2) @ frame[:2], frame[:3]).max() < 1e-5


def test_what_spans_no_subspace_is_refused() -> None:
    with pytest.raises(Refusal, match="2 vectors span a subspace of rank 1"):
        Subspace(RESID, torch.ones(2, WIDTH))
    with pytest.raises(Refusal, match="0 vectors"):
        Subspace(RESID, torch.ones(0, WIDTH))
    with pytest.raises(Refusal, match="no subspace of 8 dimensions has rank 9"):
        Subspace.random(RESID, WIDTH, 9)
    with pytest.raises(Refusal, match="DenseCodes hold none"):
        Subspace.random(RESID, WIDTH, 2).decode(DenseCodes(torch.ones(3, 1)))
