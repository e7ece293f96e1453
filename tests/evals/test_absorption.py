"""Absorption that is planted is found, and nothing else is."""

import pytest
import torch

from microtome.core.codes import DenseCodes
from microtome.core.errors import Refusal
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.evals.absorption import absorbed, main_components
from microtome.evals.biases import all_examples, bias_of, mean_purity, top_examples
from microtome.evals.firings import Firings
from microtome.models.hooked import HookedModel
from tests.evals.examined import EMBED, RESID, sae, text, truth
from tests.evals.test_identification import surveyed
from tests.toys import WIDTH


class Planted(Linear):
    """Component 0 is the label "is small" (tokens 0 to 3) but on token 3, which component 1 has taken over."""

    def __init__(self, network: HookedModel):
        write = torch.zeros(3, WIDTH)
        write[:, 0] = torch.tensor([4.0, 4.0, 0.0])
        super().__init__(EMBED, EMBED, torch.zeros(3, WIDTH), write)
        self.table = network.module.embed.weight

    def encode(self, x: torch.Tensor) -> DenseCodes:
        token = (x[..., None, :] - self.table).abs().amax(-1).argmin(-1)
        return DenseCodes(torch.stack((token < 3, token == 3, token % 2 == 0), -1).float())


def found(network: HookedModel) -> Firings:
    return surveyed(network, Planted(network), text())


def test_what_another_component_took_over_is_absorbed(network: HookedModel) -> None:
    firings, labels = found(network), truth(text())
    direction = torch.eye(WIDTH)[0]
    small, three = labels.has[:, 1], labels.has[:, 0]
    above = torch.where(small, 4.0, -4.0)  # a probe that is always right
    sums = absorbed(firings, labels, 1, [0], above, direction)
    assert sums.sum(0).tolist() == [float(three.sum()), float(small.sum())]
    for document in range(labels.documents):
        assert float(sums[document, 0]) == float((three & (labels.document == document)).sum())
    assert absorbed(firings, labels, 1, [0, 1], above, direction)[:, 0].sum() == 0  # a split is no absorption
    assert absorbed(firings, labels, 1, [0], above, -direction)[:, 0].sum() == 0  # nothing points that way
    assert absorbed(firings, labels, 1, [0], -above, direction).sum() == 0  # a probe that finds nothing


def test_a_label_has_as_many_components_as_help(network: HookedModel) -> None:
    main = main_components(found(network), truth(text()))
    assert main == [[1], [0, 1], [2]]


def test_what_is_written_elsewhere_is_refused(network: HookedModel) -> None:
    elsewhere = Linear(RESID, Site("resid_post.1"), torch.eye(WIDTH))
    labels = truth(text())
    with pytest.raises(Refusal, match="writes elsewhere"):
        absorbed(surveyed(network, elsewhere, text()), labels, 0, [0], torch.zeros(192), torch.ones(WIDTH))


def test_the_bias_is_what_is_written_when_all_is_silent() -> None:
    given = torch.arange(8.0)
    assert bias_of(Linear(RESID, RESID, torch.eye(WIDTH), offset=given)).tolist() == given.tolist()
    made = sae()
    made.b_dec.copy_(given)
    torch.testing.assert_close(bias_of(made), given)


class Graded(Planted):
    """Component 0 is strong on token 3 and weak on every other."""

    def encode(self, x: torch.Tensor) -> DenseCodes:
        token = (x[..., None, :] - self.table).abs().amax(-1).argmin(-1)
        return DenseCodes(torch.stack((1 + 8 * (token == 3), token == 20, token == 20), -1).float())


def test_top_examples_are_purer_than_all(network: HookedModel) -> None:
    firings, labels = surveyed(network, Graded(network), text()), truth(text())
    shown = top_examples(firings, labels, top=5)
    assert shown.column.tolist() == [0] and shown.purity.tolist() == [1.0] and int(shown.label) in (0, 1)
    sums = all_examples(shown, firings, labels)
    has = labels.has[:, int(shown.label)]
    assert float(mean_purity(sums.sum(0))) == pytest.approx(float(has.float().mean()))
    nothing = top_examples(firings, labels, top=1000)
    assert len(nothing.column) == 0 and mean_purity(all_examples(nothing, firings, labels).sum(0)).isnan()
