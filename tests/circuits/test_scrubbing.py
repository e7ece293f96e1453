"""A true hypothesis keeps all of the behaviour, a false one does not, and an empty one keeps nothing."""

import pytest
import torch
from torch import Tensor, nn

from microtome.circuits.scrubbing import Node, Scrubbed, drawn_alike, scrub
from microtome.core.errors import Refusal
from microtome.core.inputs import Arrays
from microtome.core.measure import Measure, cross_entropy, logit_diff
from microtome.core.site import Site
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from tests import toys


class Parity(nn.Module):
    """Of four bits: (a xor b) and (c xor d) stand in one layer, their xor is the answer; an idle unit copies a."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.idle, self.out = (nn.Identity() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = x.unbind(1)
        left, right, idle = self.left((a - b).abs()[:, None]), self.right((c - d).abs()[:, None]), self.idle(a[:, None])
        return self.out((left - right).abs() + 0.0 * idle)


BITS = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).repeat(8, 1)
A, B, C, D = BITS.long().unbind(1)
LEFT, RIGHT, IDLE, OUT = (Site(name, "batch d") for name in ("left", "right", "idle", "out"))
WRONG = Measure(lambda t: (t[OUT][:, 0] - (A ^ B ^ C ^ D)).abs(), (OUT,), "error")


def model() -> HookedModel:
    return load(Parity())


def test_a_true_hypothesis_recovers_everything(generator: torch.Generator) -> None:
    found = scrub(model(), Arrays((BITS,)), [Node(LEFT, A ^ B), Node(RIGHT, C ^ D)], WRONG, generator=generator)
    assert found.recovered == 1.0 and found.clean.max() == 0 and 0.4 < found.random.mean() < 0.6


@pytest.mark.parametrize(
    "false",
    [
        [Node(LEFT, A), Node(RIGHT, C ^ D)],
        [Node(LEFT, A ^ B)],
        [Node(LEFT, A ^ B), Node(RIGHT, C)],
        [Node(IDLE, A)],
        [],
    ],
)
def test_a_false_hypothesis_recovers_nothing_here(false: list[Node], generator: torch.Generator) -> None:
    found = scrub(model(), Arrays((BITS,)), false, WRONG, generator=generator)
    low, high = found.interval(generator=generator)
    assert low < found.recovered < high and low < 0.2 and high < 0.4


def test_interchanging_a_row_with_itself_alone_recovers_everything(generator: torch.Generator) -> None:
    """Each row is the same as no other: the strictest hypothesis, and the network itself."""
    network, rows = toys.residual(), toys.rows()
    each = torch.arange(3)
    measure = cross_entropy()
    found = scrub(network, rows, [Node(Site("resid_post.1"), each)], measure, generator=generator)
    for draw in found.scrubbed:
        torch.testing.assert_close(draw, found.clean)


def test_a_tree_is_what_its_runs_are_one_by_one(generator: torch.Generator) -> None:
    """With two rows a blind exchange is the row itself or the other; every result is among those made by hand."""
    network, rows = toys.residual(), toys.rows().rows(slice(0, 2))
    early, late = Site("mlp_out.0"), Site("mlp_out.1")
    each = torch.arange(2)
    measure = logit_diff(1, 2)
    tree = [Node(late, each, (Node(early, each),))]
    found = scrub(network, rows, tree, measure, generator=generator, draws=30)
    by_hand = [
        by_runs(network, rows, early, late, mine, blind, outer)
        for mine in (0, 1)
        for blind in (0, 1)
        for outer in (0, 1)
    ]
    for row in (0, 1):
        possible = torch.stack(by_hand[4 * row : 4 * row + 4])
        made = found.scrubbed[:, row]
        distance = (made[:, None] - possible).abs()
        assert distance.min(1).values.max() < 1e-4
        assert len(distance.argmin(1).unique()) == 4  # every choice came up


def by_runs(network: HookedModel, rows, early: Site, late: Site, mine: int, blind: int, outer: int) -> Tensor:
    """One row, by hand: its own early output in a blind row makes the late one, which goes into another blind row."""
    from microtome.core.edit import patch

    one = [rows.rows(slice(i, i + 1)) for i in (0, 1)]
    own = network.run(one[mine], read=[early])
    made = network.run(one[blind], read=[late], edit=[patch(early, own)])
    return logit_diff(1, 2)(network.run(one[outer], edit=[patch(late, made)]))[0]


def test_parts_of_the_data_do_not_change_what_is_found() -> None:
    network, rows = toys.residual(), toys.rows()
    tree = [Node(Site("mlp_out.1").at(pos=-1), torch.tensor([0, 0, 1])), Node(Site("mlp_out.0"), torch.zeros(3).long())]
    whole, parts = (
        scrub(network, rows, tree, cross_entropy(), generator=torch.Generator().manual_seed(1), rows=r).scrubbed
        for r in (256, 2)
    )
    torch.testing.assert_close(whole, parts)


def test_a_draw_is_alike_and_each_alike_row_is_drawn(generator: torch.Generator) -> None:
    same = torch.tensor([3, 1, 3, 3, 1, 7])
    of = torch.arange(6).repeat(300)
    like = drawn_alike(same, of, generator)
    assert torch.equal(same[like], same[of])
    for row in range(6):
        counts = like[of == row].bincount(minlength=6)[same == same[row]]
        assert (counts > 200 / len(counts)).all()


def test_what_cannot_be_scrubbed_is_refused(generator: torch.Generator) -> None:
    network = toys.residual()
    with pytest.raises(Refusal, match="rows of 2 to 7 tokens cannot be exchanged"):
        scrub(network, toys.rows(ragged=True), [], cross_entropy(), generator=generator)
    with pytest.raises(Refusal, match="speaks of 2 rows and there are 3"):
        deep = Node(Site("mlp_out.1"), torch.arange(3), (Node(Site("mlp_out.0"), torch.arange(2)),))
        scrub(network, toys.rows(), [deep], cross_entropy(), generator=generator)
    with pytest.raises(Refusal, match="is about some rows alone"):
        scrub(
            network,
            toys.rows(),
            [Node(Site("mlp_out.0").at(batch=1), torch.arange(3))],
            cross_entropy(),
            generator=generator,
        )
    with pytest.raises(Refusal, match="nothing can be recovered"):
        _ = Scrubbed(torch.ones(3), torch.ones(2, 3), torch.ones(2, 3)).recovered
