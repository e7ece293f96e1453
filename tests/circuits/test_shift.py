"""A classifier that rests on a planted cue is freed of it by the latents that carry the cue."""

import pytest
import torch
from torch import Tensor, nn

from microtome.circuits.feature_effects import FeatureNode, attributed
from microtome.circuits.shift import Verdicts, classifier, judged, pooled, verdict, without
from microtome.core.errors import Refusal
from microtome.core.inputs import Arrays, Tokens
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from tests import toys
from tests.toys import WIDTH

D, LABEL, CUE = 12, 3, 8  # which of the latents carry what
MIXED, LATER = Site("0", "batch d"), Site("1", "batch d")
SPREAD = 0.7


def world() -> tuple[HookedModel, Linear]:
    """Twelve features stand in turned directions, of which the dictionary knows; a turn more and the classifier reads."""
    turns = [torch.linalg.qr(torch.randn(D, D)).Q for _ in range(2)]
    layers = nn.Sequential(*(nn.Linear(D, D, bias=False) for _ in turns)).requires_grad_(False)
    for layer, turn in zip(layers, turns, strict=True):
        layer.weight.copy_(turn)
    return load(layers), Linear(MIXED, MIXED, turns[0].T.contiguous()).requires_grad_(False)


def rows(count: int, agree: bool) -> tuple[Arrays, Tensor, Tensor]:
    """Features, the wanted label, the cue. The cue is plainer to see than the label, as in the paper."""
    label = torch.rand(count) < 0.5
    cue = label if agree else torch.rand(count) < 0.5
    x = torch.randn(count, D) * SPREAD
    x[:, LABEL] += 2.0 * label - 1
    x[:, CUE] += 4.0 * cue - 2
    return Arrays((x,)), label, cue


def test_removing_the_cue_makes_the_classifier_judge_by_the_label() -> None:
    model, parts = world()
    inputs, label, _ = rows(800, agree=True)
    found = classifier(LATER, pooled(model, inputs, LATER), label)
    unseen, truth, cue = rows(800, agree=False)
    groups = 2 * truth.long() + cue.long()
    biased = judged(found, pooled(model, unseen, LATER), truth, groups)
    assert biased.worst.interval[1] < 0.4 and judged(found, pooled(model, unseen, LATER), cue).accuracy.value > 0.9

    effects = attributed(model, *pairs(inputs, label), [parts], verdict(found))
    carriers = {n.component for n in effects.above(0.5)}
    assert carriers == {LABEL, CUE}

    edits = without([parts], [FeatureNode(0, CUE)])
    freed = judged(found, pooled(model, unseen, LATER, edits), truth, groups)
    again = classifier(LATER, pooled(model, inputs, LATER, edits), label)
    refitted = judged(again, pooled(model, unseen, LATER, edits), truth, groups)
    assert freed.accuracy.value > biased.accuracy.value + 0.2
    assert min(freed.worst.interval[0], refitted.worst.interval[0]) > 0.75

    other = without([parts], [FeatureNode(0, 0)])  # as many latents, not the cue's
    assert judged(found, pooled(model, unseen, LATER, other), truth, groups).worst.interval[1] < 0.4


def pairs(inputs: Arrays, label: Tensor) -> tuple[Arrays, Arrays]:
    """Rows of one kind beside rows of the other."""
    (x,) = inputs.tensors
    count = min(int(label.sum()), int((~label).sum()))
    return Arrays((x[label][:count],)), Arrays((x[~label][:count],))


def test_effects_on_a_verdict_are_exact_as_all_is_linear() -> None:
    model, parts = world()
    inputs, label, _ = rows(60, agree=True)
    found = classifier(LATER, pooled(model, inputs, LATER), label)
    args = (model, *pairs(inputs, label), [parts], verdict(found))
    fast = attributed(*args)
    nodes = list(fast.nodes())
    truth = torch.stack([judged_shift(model, args, parts, node, found) for node in nodes])
    torch.testing.assert_close(torch.stack([fast.of(n) for n in nodes]), truth, rtol=1e-3, atol=1e-4)


def judged_shift(model: HookedModel, args, parts: Linear, node: FeatureNode, found) -> Tensor:
    """The verdict with one latent of the clean rows put to its value on the others, less the verdict, by hand."""
    clean, corrupt = (model.run(x, read=[MIXED])[MIXED] for x in args[1:3])
    if node.component is None:
        return torch.zeros(len(clean))  # the dictionary misses nothing
    d = parts.write[node.component]
    turned = model.module[1].weight @ ((corrupt - clean) @ d[:, None] * d).T
    return found.read[0].squeeze() @ turned


def test_a_classifier_is_where_the_gradient_of_its_loss_is_zero() -> None:
    x, labels = torch.randn(200, 5).double() + 3, torch.rand(200) < 0.4
    x[labels, 0] += 1
    found = classifier(Site("x", "batch d"), x, labels, decay=0.1)
    logits, size = found.activity(x), (x - x.mean(0)).square().mean().sqrt()
    wrong = logits.sigmoid() - labels.double()
    weight = found.read[0] * size
    torch.testing.assert_close(wrong.mean(), torch.zeros(()).double(), atol=1e-5, rtol=0)
    slope = ((x - x.mean(0)) / size * wrong[:, None]).mean(0) + 0.1 * weight
    torch.testing.assert_close(slope, torch.zeros(5).double(), atol=1e-5, rtol=0)


def test_pooling_is_over_real_tokens(network: HookedModel) -> None:
    site = Site("resid_post.0")
    whole = pooled(network, Tokens.of(toys.RAGGED, left=True), site, rows=2)
    for row, alone in zip(whole, toys.singly(toys.RAGGED), strict=True):
        torch.testing.assert_close(row, network.run(alone, read=[site])[site][0].mean(0), rtol=1e-5, atol=1e-5)
    probe = Linear(site, None, torch.randn(1, WIDTH), offset=torch.randn(WIDTH)).requires_grad_(False)[0]
    read = network.run(toys.rows(ragged=True), read=[site])
    torch.testing.assert_close(verdict(probe)(read), probe.activity(whole), rtol=1e-5, atol=1e-5)


def test_groups_are_told_apart() -> None:
    found = Verdicts(torch.tensor([True, True, False, True, False, False]), torch.tensor([0, 0, 0, 2, 2, 2]))
    assert found.accuracy.value == 0.5 and {g: round(a.value, 3) for g, a in found.by_group.items()} == {
        0: 0.667,
        2: 0.333,
    }
    assert found.worst.value == found.by_group[2].value


def test_what_cannot_be_judged_or_removed_is_refused() -> None:
    model, parts = world()
    with pytest.raises(Refusal, match="all 4 labels are True"):
        classifier(LATER, torch.randn(4, 3), torch.ones(4, dtype=torch.bool))
    with pytest.raises(Refusal, match="node 0/error is what a dictionary misses"):
        without([parts], [FeatureNode(0, None)])
    assert without([parts], []) == []
