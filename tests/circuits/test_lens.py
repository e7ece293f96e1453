"""The lens reads an early stream as the network reads its last one."""

from pathlib import Path

import pytest
import torch

from microtome.circuits.lens import LensLoss, TunedLens, following, lens, lens_grid, read_out
from microtome.core.errors import NoSuchSite, Refusal
from microtome.core.fit import fit
from microtome.core.inputs import Tokens
from microtome.core.site import Site
from microtome.models.hooked import HookedModel
from microtome.store.artefact import save_module
from tests import toys
from tests.models.zoo import RAGGED, SAYING, batch, model


@torch.no_grad()
@pytest.mark.parametrize("name", [*SAYING, "bert"])
def test_at_the_last_layer_the_lens_is_the_network(name: str) -> None:
    m, rows = model(name), Tokens.of(RAGGED)
    *early, (site, logits) = list(lens(m, rows))
    assert site.name == "resid_post.1"
    assert [s.site.name for s in early] == ["resid_pre.0", "resid_post.0"]
    torch.testing.assert_close(logits[rows.mask], m.run(rows)["logits"][rows.mask])


@torch.no_grad()
def test_the_lens_is_the_final_norm_and_the_unembedding() -> None:
    m, rows = model("llama"), batch("llama")
    x = m.run(rows, read=[m.site("resid_post.0")])["resid_post.0"]
    module = m.module
    expected = module.lm_head(module.model.norm(x))  # type: ignore[operator, union-attr]
    torch.testing.assert_close(read_out(m, rows, x), expected)


@pytest.mark.parametrize("left", [False, True])
def test_the_grid_counts_ranks_and_leaves_padding_out(network: HookedModel, left: bool) -> None:
    rows = toys.rows(ragged=True, left=left)
    grid = lens_grid(network, rows)
    logits = network.run(rows)["logits"]
    p = logits.softmax(-1)
    for row, length in enumerate(rows.lengths.tolist()):
        columns = rows.mask[row].nonzero()[:, 0].tolist()
        for here, after in zip(columns, columns[1:], strict=False):
            target = int(rows.ids[row, after])
            order = logits[row, here].argsort(descending=True).tolist()
            assert int(grid.rank[-1, row, here]) == order.index(target)
            torch.testing.assert_close(grid.probability[-1, row, here], p[row, here, target])
            assert int(grid.top[-1, row, here]) == order[0]
        assert int(grid.rank[-1, row, columns[-1]]) == -1
        assert int(grid.divergence[0, row].isfinite().sum()) == length
    assert grid.divergence[-1][rows.mask].abs().max() < 1e-5
    assert (grid.divergence[0][rows.mask] > -1e-6).all()


def test_what_follows_is_the_next_real_token() -> None:
    assert following(Tokens.of([[1, 2, 3], [4, 5]])).tolist() == [[2, 3, -1], [5, -1, -1]]
    assert following(Tokens.of([[1, 2, 3], [4, 5]], left=True)).tolist() == [[2, 3, -1], [-1, 5, -1]]


@torch.no_grad()
def test_an_unfitted_tuned_lens_is_the_logit_lens(network: HookedModel) -> None:
    rows = toys.rows()
    tuned = TunedLens(network.sites("resid_post.*"), toys.WIDTH)
    plain, translated = (list(lens(network, rows, tuned.sites, t)) for t in (None, tuned))
    for one, other in zip(plain, translated, strict=True):
        torch.testing.assert_close(one.logits, other.logits)


def test_a_fitted_lens_is_nearer_the_network_and_comes_back_from_disk(network: HookedModel, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    tuned = TunedLens([network.site("resid_pre.0"), network.site("resid_post.0")], toys.WIDTH)
    batches = [Tokens.of(torch.randint(toys.VOCAB, (16, 6), generator=generator)) for _ in range(150)]
    held_out = Tokens.of(torch.randint(toys.VOCAB, (16, 6), generator=generator))
    before = LensLoss(network)(tuned, held_out)["divergence"].item()
    for _ in fit(tuned, batches, LensLoss(network), lr=1e-2):
        pass
    after = LensLoss(network)(tuned, held_out)["divergence"].item()
    assert after < 0.7 * before
    grids = [lens_grid(network, held_out, sites=tuned.sites, tuned=t).divergence.mean() for t in (None, tuned)]
    torch.testing.assert_close(torch.stack(grids), torch.tensor([before, after]), atol=1e-5, rtol=1e-4)
    tuned.save(tmp_path)
    again = TunedLens.load(tmp_path)
    assert again.sites == tuned.sites
    torch.testing.assert_close(again.weight, tuned.weight)
    with pytest.raises(NoSuchSite, match="has no 'resid_post.1'; it was made for resid_pre.0"):
        again(torch.zeros(1, 8), network.site("resid_post.1"))


def test_what_is_no_lens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="at least one site"):
        TunedLens([], 4)
    save_module(TunedLens([Site("resid_post.0")], 2), tmp_path, {"class": "SAE", "d": 2, "sites": []})
    with pytest.raises(Refusal, match="holds a SAE, not a TunedLens"):
        TunedLens.load(tmp_path)
