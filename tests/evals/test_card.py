"""Every score is asked of everybody, and is what the parts say alone."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.core.linear import Coordinates, Linear
from microtome.core.site import Site
from microtome.evals.card import OWN, REFIT, Examination
from microtome.evals.reconstruction import variance
from microtome.models.hooked import HookedModel
from tests.evals.examined import NAMES, RESID, sae, text
from tests.toys import WIDTH


def examined(network: HookedModel, **settings) -> Examination:
    dictionaries = {OWN: sae(), "axes": Coordinates(RESID, WIDTH)}
    found = Examination(
        dictionaries, text(60), text(40, 5, seed=1), generator=torch.Generator().manual_seed(0),
        **({"labels": NAMES, "known": NAMES} | settings),
    )  # fmt: skip
    assert list(found.reading(network, WIDTH))[-1] == 100
    return found


@pytest.fixture(scope="module")
def found(network: HookedModel) -> Examination:
    return examined(network)


def test_all_rows_hold_everybody(found: Examination, network: HookedModel) -> None:
    rows = [*found.fidelity_rows(), *found.activity_rows(), *found.bias_rows(), *found.probing_rows((1, 2))]
    for part in found.faithfulness_rows(network, torch.arange(0, 40, 2)):
        rows += part
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert set(row.scores) == ({OWN} if row.name.startswith("linear") else {OWN, "axes"}), row.name
    scores = {row.name: row.scores for row in rows}
    whole = variance(network, sae(), text(40, 5, seed=1).tokens)
    assert scores["explained variance"][OWN].found == pytest.approx(whole.explained, abs=1e-7)
    assert scores["explained variance"]["axes"].found == pytest.approx(1)
    assert scores["dead"][OWN].found == pytest.approx(whole.never_fired)
    assert scores["cross-entropy recovered"]["axes"].found == pytest.approx(1, abs=1e-5)
    assert scores["dense"]["axes"].found == 1


def test_facts_are_those_of_the_detectors(found: Examination) -> None:
    facts = found.facts()
    assert [fact.name for fact in facts] == list(NAMES)
    for fact, one in zip(facts, found.detectors[OWN], strict=True):
        assert (fact.component, fact.sign, fact.threshold) == (one.component, one.sign, one.threshold)
        assert set(fact.scores) == {OWN, "axes"} and fact.tokens > 0
        assert fact.linear.found is not None and fact.chance.found is not None
    single = next(iter(found.probing_rows(())))
    mean = sum(fact.scores[OWN].found or 0 for fact in facts) / 3
    assert single.scores[OWN].found == pytest.approx(mean)


def test_absorption_is_asked_where_the_linear_probe_tells(found: Examination) -> None:
    told = [fact for fact in found.facts() if (fact.linear.found or 0) >= 0.6]
    rows = found.absorption_rows()
    assert len(rows) == (2 if told else 0)
    for row in rows:
        assert f"{len(told)} labels" in row.about and (row.scores[OWN].found or 0) >= 0


def test_without_labels_nothing_is_probed(network: HookedModel) -> None:
    bare = examined(network, labels=())
    assert not bare.labelled and bare.says is None
    assert {row.name for row in bare.bias_rows()}.isdisjoint({"purity of top examples"})


def test_the_same_dictionary_from_other_seeds_is_told_with_it(network: HookedModel) -> None:
    given = {OWN: sae(), f"{REFIT}twin": sae(), f"{REFIT}poor": sae(k=1)}
    found = Examination(given, text(60), text(40, 5, seed=1), generator=torch.Generator(), labels=NAMES, known=NAMES)
    assert list(found.reading(network, WIDTH))[-1] == 100
    (row,) = found.fidelity_rows()
    assert set(row.scores) == {OWN} and all(set(fact.scores) == {OWN} for fact in found.facts())
    own, fits = row.scores[OWN].found, row.scores[OWN].fits
    poor = variance(network, sae(k=1), text(40, 5, seed=1).tokens).explained
    assert own is not None and fits is not None and fits.low is not None and fits.high is not None
    assert fits.found == pytest.approx((2 * own + poor) / 3) and fits.low < poor < own < fits.high


def test_dictionaries_of_several_sites_are_refused() -> None:
    two = Linear(RESID, RESID, torch.eye(WIDTH))
    two.reads = (RESID, Site("resid_post.1"))
    with pytest.raises(Refusal, match="reads at 2 sites; a card is of one that reads one"):
        Examination({OWN: two}, text(), text(), generator=torch.Generator())
    two.writes = ()
    with pytest.raises(Refusal, match="writes nothing"):
        Examination({OWN: two}, text(), text(), generator=torch.Generator())
