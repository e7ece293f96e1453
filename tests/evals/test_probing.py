"""Sparse probes are logistic regressions on few components; the linear probe one on what is read."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.core.linear import Coordinates
from microtome.evals.interval import f1
from microtome.evals.logistic import best_threshold, logistic
from microtome.evals.probing import Kept, Says, linear_probe, ranked, sparse_probe, sparse_probing
from microtome.models.hooked import HookedModel
from microtome.store.survey import surveying
from tests.evals.examined import RESID, sae, text, truth
from tests.evals.test_identification import f1_of, surveyed
from tests.toys import WIDTH


def test_rows_that_count_twice_are_rows_that_stand_twice(generator: torch.Generator) -> None:
    x, has = torch.randn(80, 2, generator=generator), torch.rand(80, 1, generator=generator) < 0.3
    times = torch.ones(80)
    times[:40] = 2
    weighted, repeated = logistic(x, has, times), logistic(torch.cat((x, x[:40])), torch.cat((has, has[:40])))
    torch.testing.assert_close(weighted.weight, repeated.weight, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(weighted.threshold, repeated.threshold, atol=1e-3, rtol=1e-3)


def test_no_other_threshold_scores_better(generator: torch.Generator) -> None:
    logits, has = torch.randn(60, generator=generator).round(decimals=1), torch.rand(60, generator=generator) < 0.4
    at = best_threshold(logits, has, torch.ones(60))
    assert f1_of(logits >= at, has) == pytest.approx(max(f1_of(logits >= t, has) for t in logits.unique()))


def test_components_are_ranked_by_how_far_their_means_lie_apart(network: HookedModel) -> None:
    found, labels = surveyed(network, sae(), text()), truth(text())
    dense = found.dense(list(range(24))).double()
    order = ranked(found, labels)
    for label, has in enumerate(labels.has.unbind(1)):
        apart = (dense[has].mean(0) - dense[~has].mean(0)).abs() / dense.std(0, correction=0).clamp(min=1e-6)
        sizes = apart[order[label]]
        assert (sizes.diff() <= 1e-9).all()


def test_tokens_on_which_nothing_fires_count_as_if_they_were_looked_at(network: HookedModel) -> None:
    found, labels = surveyed(network, sae(), text()), truth(text())
    components = ranked(found, labels)[1, :3].tolist()
    x = found.dense(components)
    short, whole = sparse_probe(found, labels, 1, components), logistic(x, labels.has[:, 1:2])
    assert bool((x == 0).all(1).any())
    torch.testing.assert_close(torch.sigmoid(short.logits(x)), torch.sigmoid(whole.logits(x)), atol=1e-3, rtol=0)


def test_all_components_together_tell_what_the_linear_probe_tells(network: HookedModel) -> None:
    axes, given, labels = Coordinates(RESID, WIDTH), text(60), truth(text(60))
    found, kept = surveyed(network, axes, given), Kept(axes, 480, WIDTH)
    for _ in surveying(network, [kept], given.tokens, batch=7):
        pass
    says = Says(axes, linear_probe(kept, labels))
    for _ in surveying(network, [says], given.tokens, batch=11):
        pass
    whole = sparse_probing((found, labels), (found, labels), WIDTH).sum(0).split(3)
    for one, other in zip(says.judged(labels).sum(0).split(3), whole, strict=True):
        assert float(f1(one)) == pytest.approx(float(f1(other)), abs=0.02)


def test_a_probe_keeps_no_more_rows_than_it_may(network: HookedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microtome.evals.probing.NUMBERS", 100 * WIDTH)
    axes, given = Coordinates(RESID, WIDTH), text(60)
    every, kept = surveyed(network, axes, given).dense(list(range(WIDTH))), Kept(axes, 480, WIDTH)
    for _ in surveying(network, [kept], given.tokens, batch=7):
        pass
    assert len(kept.rows) == 96
    torch.testing.assert_close(kept.rows, every[kept.tokens])


def test_a_number_of_components_that_there_are_not_is_refused(network: HookedModel) -> None:
    found, labels = surveyed(network, sae(), text()), truth(text())
    for k in (0, 25):
        with pytest.raises(Refusal, match=f"k is {k}; a sparse probe reads 1 to 24"):
            sparse_probing((found, labels), (found, labels), k)
