"""A passage is found wherever the catalogue's text holds it, and so are the components that are active on it."""

import numpy as np
import pytest

from microtome.browser.cards import Opened
from microtome.browser.passages import Passages
from microtome.browser.runs import Runs
from tests.browser.sample import write_run


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "run", 40)
    (run,) = Runs(folder).find()
    return Opened(run)


def words(opened: Opened, token: int) -> str:
    catalog = opened.catalog
    return catalog.vocabulary[catalog.windows["tokens"].reshape(-1)[token]]


def test_a_token_is_found_everywhere_it_stands_but_at_position_0(opened: Opened) -> None:
    catalog = opened.catalog
    ids = np.asarray(catalog.windows["tokens"])
    text = max((words(opened, t) for t in range(1, 60)), key=len)
    found = opened.passages.places(text, most=10**9)
    assert (found % catalog.context > 0).all()
    whole = np.flatnonzero(np.isin(ids, [i for i, w in enumerate(catalog.vocabulary) if w == text]))
    assert set(whole[whole % catalog.context > 0].tolist()) <= set(found.tolist())
    assert all(set(words(opened, t)) & set(text) for t in found.tolist())


def test_a_passage_of_several_tokens_is_found_as_those_tokens(opened: Opened) -> None:
    catalog = opened.catalog
    place = 5 * catalog.context + 7
    text = "".join(words(opened, place + i) for i in range(6))
    assert set(range(place, place + 6)) <= set(Passages(catalog).places(text, most=10**9).tolist())
    assert len(Passages(catalog).places("no such passage is there")) == len(Passages(catalog).places("")) == 0


def test_components_are_ranked_by_how_active_they_are_there(opened: Opened) -> None:
    catalog = opened.catalog
    token = int(catalog.components["exemplars"][3, 0])
    text = "".join(words(opened, token + i) for i in range(-3, 1))
    found = opened.search_example(text)
    tokens = opened.passages.places(text)
    for component, weight in zip(found.components, found.weight, strict=True):
        column = catalog.column(component)
        active = column.value[np.isin(column.token, tokens)].astype(float).sum()
        assert weight == pytest.approx(active / catalog.components["max"][component], rel=1e-3)
    assert 3 in found.components and found.weight == sorted(found.weight, reverse=True)
    assert opened.search_example("no such passage is there").total == 0
