"""The best detector is the best of all that there are, by trying them; held out it is judged on what it did not see."""

import pytest
import torch

from microtome.core.codes import DenseCodes
from microtome.core.errors import Refusal
from microtome.core.linear import Linear
from microtome.evals.firings import Firings
from microtome.evals.identification import detectors, judged
from microtome.evals.interval import f1
from microtome.evals.truth import FACTS, Truth, chance, missing
from microtome.models.hooked import HookedModel
from microtome.store.survey import surveying
from tests import toys
from tests.evals.examined import EMBED, NAMES, sae, text, truth


def surveyed(network: HookedModel, dictionary, given) -> Firings:
    found = Firings(dictionary)
    for _ in surveying(network, [found], given.tokens):
        pass
    return found


def f1_of(claimed: torch.Tensor, has: torch.Tensor) -> float:
    return float(2 * (claimed & has).sum() / (claimed.sum() + has.sum()))


def test_no_component_sign_and_threshold_does_better(network: HookedModel) -> None:
    given = text()
    found, labels = surveyed(network, sae(), given), truth(text())
    dense = found.dense(list(range(24)))
    for label, one in enumerate(detectors(found, labels)):
        tried = [
            f1_of(sign * dense[:, c] >= at, labels.has[:, label])
            for c in range(24) for sign in (1, -1) for at in (sign * dense[:, c]).unique().tolist() if at > 0
        ]  # fmt: skip
        assert one.f1 == pytest.approx(max(tried))
        assert f1_of(one.fires(found), labels.has[:, label]) == pytest.approx(one.f1)


def test_a_component_that_is_the_label_is_found_and_holds_on_other_text(network: HookedModel) -> None:
    class Tokens(Linear):
        """Active on token 3, by exact equality with its embedding."""

        def encode(self, x):
            same = (x - network.module.embed.weight[3]).abs().amax(-1) < 1e-6
            return DenseCodes(torch.stack((torch.zeros_like(same), same), -1).float() * 2.5)

    dictionary = Tokens(EMBED, EMBED, torch.zeros(2, toys.WIDTH))
    train, other = text(), text(30, 5, seed=1)
    found = detectors(surveyed(network, dictionary, train), truth(train))[0]
    assert (found.component, found.sign, found.threshold, found.f1) == (1, 1, 2.5, 1.0)
    sums = judged([found], surveyed(network, dictionary, other), Truth.of(other, NAMES[:1], NAMES))
    assert float(f1(sums.sum(0))) == 1.0 and sums.shape == (5, 3)


def test_claiming_every_token_scores_what_the_share_of_the_label_says() -> None:
    labels = truth(text())
    for found, label in zip(chance(labels).sum(0).split(3), labels.has.unbind(1), strict=True):
        p = float(label.float().mean())
        assert float(f1(found)) == pytest.approx(2 * p / (1 + p))
        assert float(f1(found)) == pytest.approx(f1_of(torch.ones_like(label), label))


def test_what_a_detector_claims_is_counted_in_its_documents(network: HookedModel) -> None:
    labels, generator = truth(text()), torch.Generator().manual_seed(1)
    claimed = torch.rand(len(labels.has), generator=generator) < 0.4
    sums = labels.judged(claimed, 1)
    for document in range(labels.documents):
        here = labels.document == document
        wanted = [(claimed & labels.has[:, 1])[here].sum(), claimed[here].sum(), labels.has[here, 1].sum()]
        assert sums[document].tolist() == [float(x) for x in wanted]


def test_the_twenty_facts_are_labels_of_python_text() -> None:
    assert len(set(FACTS)) == 20
    with pytest.raises(Refusal, match="no label 'in a poem'; known: indentation"):
        Truth.of(text(), ["in a poem"])


def test_labels_that_do_not_align_and_classes_without_examples_are_refused(network: HookedModel) -> None:
    given = text()
    found = surveyed(network, sae(), given)
    with pytest.raises(Refusal, match="do not align to 24 windows of 9 tokens with 2 labels each"):
        Truth.of(given, NAMES[:1], NAMES[:2])
    with pytest.raises(Refusal, match=r"192 tokens were read and 240 are labelled, so labels do not align"):
        detectors(found, truth(text(30)))
    none = Truth(NAMES, torch.zeros(192, 3, dtype=torch.bool), torch.zeros(192, dtype=torch.long), 1)
    with pytest.raises(Refusal, match="no token has the label 'is three' in the training text; give more"):
        detectors(found, none)
    assert missing(truth(given), none) == list(NAMES)
    assert truth(given).without(["is small"]).names == ("is three", "is even")
