"""What fires together is what brute force over all activations at once says."""

from pathlib import Path

import numpy as np
import pytest
import torch

from microtome.core.errors import Refusal
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.sae import SAE
from microtome.explain import together as counting
from microtome.explain.catalog import Cataloguer
from microtome.explain.together import meetings, together
from microtome.store.catalog import Catalog
from tests import toys
from tests.explain.test_catalog import RESID, VOCABULARY, WIDTH, built, text


def sae(width: int, seed: int) -> SAE:
    return SAE(RESID, toys.WIDTH, width, TopK(4), generator=torch.Generator().manual_seed(seed)).requires_grad_(False)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, Catalog]:
    folder = tmp_path_factory.mktemp("pair")
    return built(folder / "one"), built(folder / "other", dictionary=sae(40, 5))


def dense(catalog: Catalog) -> np.ndarray:
    found = np.zeros((catalog.windows["tokens"].size, len(catalog)))
    for component in range(len(catalog)):
        column = catalog.column(component)
        found[column.token, component] = column.value
    return found


@pytest.mark.parametrize("most", [50, 10**9])
def test_partners_in_another_dictionary_are_those_of_brute_force(pair, monkeypatch, most: int) -> None:
    monkeypatch.setattr(counting, "meetings", lambda a, b, start, stop: meetings(a, b, start, stop, most))
    found, (x, y) = together(*pair), map(dense, pair)
    product, both = x.T @ y, (x != 0).T.astype(int) @ (y != 0)
    expected = product / np.maximum(np.linalg.norm(x, axis=0)[:, None] * np.linalg.norm(y, axis=0), 1e-30)
    either = (x != 0).sum(0)[:, None] + (y != 0).sum(0) - both
    for component in range(WIDTH):
        kept = found.component[component] >= 0
        partners = found.component[component][kept]
        assert kept.sum() == min(10, (both[component] > 0).sum())
        np.testing.assert_allclose(found.correlation[component][kept], expected[component, partners], rtol=1e-9)
        best = np.sort(np.where(both[component] > 0, expected[component], -2))[::-1][: kept.sum()]
        np.testing.assert_allclose(found.correlation[component][kept], best, rtol=1e-9)
        assert np.array_equal(found.both[component][kept], both[component, partners])
        np.testing.assert_allclose(
            found.overlap[component][kept], both[component, partners] / either[component, partners]
        )


def test_nothing_is_its_own_partner_and_correlation_is_mutual(pair) -> None:
    found = together(pair[0])
    assert (found.component != np.arange(WIDTH)[:, None]).all()
    held = {(c, p): r for c in range(WIDTH) for p, r in zip(found.component[c], found.correlation[c], strict=True)}
    assert all(held[q, p] == pytest.approx(r) for (p, q), r in held.items() if (q, p) in held)


def test_a_dictionary_finds_itself_whatever_the_order_of_its_components(pair, tmp_path: Path) -> None:
    made = toys_sae = sae(40, 5)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    for name in ("W_enc", "W_dec", "b_enc"):
        held = getattr(toys_sae, name)
        held.copy_(held[order] if held.shape[0] == 40 else held[:, order])
    found = together(pair[1], built(tmp_path / "turned", dictionary=made))
    live = pair[1].components["count"] > 0
    inverse = order.argsort().numpy()
    assert np.array_equal(found.component[live, 0], inverse[live]) and (found.correlation[live, 0] > 0.999).all()


def test_a_sample_of_the_tokens_is_the_same_for_every_catalogue(pair) -> None:
    some = together(*pair, tokens=300)
    assert 0 < some.both.sum() < together(*pair).both.sum()


def test_a_catalogue_in_which_nothing_fires_has_no_partners(tmp_path: Path, pair) -> None:
    silent = sae(6, 0)
    silent.b_enc.fill_(-1e6)
    found = together(built(tmp_path / "silent", dictionary=silent), pair[0])
    assert (found.component == -1).all() and not found.overlap.any()


def test_other_text_is_refused(pair, tmp_path: Path) -> None:
    some = Cataloguer(sae(5, 0), text(), tmp_path / "some")
    some.text.tokens[0, 3] = (some.text.tokens[0, 3] + 1) % toys.VOCAB
    with pytest.raises(Refusal, match="were catalogued on different text"):
        together(pair[0], some.finish(vocabulary=VOCABULARY))
