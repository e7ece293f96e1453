"""Every recipe learns, on the activations of a small network; what it learned is saved and loaded with its numbers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from microtome.core.fit import fit
from microtome.core.rows import Rows
from microtome.core.site import Site
from microtome.dictionaries import recipes
from microtome.dictionaries.files import load_dictionary, save_dictionary
from microtome.dictionaries.recipes import Recipe
from tests import toys

RESID = Site("resid_post.0")
MLPS = [Site(f"{name}.{layer}") for layer in range(2) for name in ("mlp_in", "mlp_out")]
WIDTH, K, STEPS = 48, 4, 150
NETWORK = toys.residual()


def tokens(rows: int, seed: int) -> toys.Tokens:
    return toys.Tokens.of(torch.randint(toys.VOCAB, (rows, 8), generator=torch.Generator().manual_seed(seed)))


def rows(seed: int = 0) -> Rows:
    sites = [RESID, Site("resid_post.1"), *MLPS]
    trace = NETWORK.run(tokens(64, seed), read=sites)
    return Rows({site.name: trace[site][:, 1:].flatten(0, 1).detach() for site in sites})


def at(site: Site) -> tuple[Site, Tensor]:
    return site, rows()[site]


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


OF_ONE_SITE: dict[str, Callable[[], Recipe]] = {
    "relu": lambda: recipes.relu(*at(RESID), WIDTH, 0.01, drawn()),
    "relu_free": lambda: recipes.relu_free(*at(RESID), WIDTH, 0.01, drawn()),
    "annealed": lambda: recipes.annealed(*at(RESID), WIDTH, 0.01, STEPS, drawn()),
    "gated": lambda: recipes.gated(*at(RESID), WIDTH, 0.01, drawn()),
    "topk": lambda: recipes.topk(*at(RESID), WIDTH, K, drawn()),
    "multi_topk": lambda: recipes.multi_topk(*at(RESID), WIDTH, K, drawn()),
    "hierarchical_topk": lambda: recipes.hierarchical_topk(*at(RESID), WIDTH, K, drawn()),
    "abs_topk": lambda: recipes.abs_topk(*at(RESID), WIDTH, K, drawn()),
    "batch_topk": lambda: recipes.batch_topk(*at(RESID), WIDTH, K, drawn()),
    "matryoshka": lambda: recipes.matryoshka(*at(RESID), WIDTH, K, drawn()),
    "orthogonal": lambda: recipes.orthogonal(*at(RESID), WIDTH, K, generator=drawn()),
    "jump_relu": lambda: recipes.jump_relu(*at(RESID), WIDTH, 0.01, drawn()),
    "jump_relu_tanh": lambda: recipes.jump_relu_tanh(*at(RESID), WIDTH, 0.01, drawn()),
    "jump_relu_target": lambda: recipes.jump_relu_target(*at(RESID), WIDTH, float(K), drawn()),
    "jump_relu_frequency": lambda: recipes.jump_relu_frequency(*at(RESID), WIDTH, float(K), drawn()),
    "matching_pursuit": lambda: recipes.matching_pursuit(*at(RESID), WIDTH, K, drawn()),
    "frozen_decoder": lambda: recipes.frozen_decoder(*at(RESID), WIDTH, K, drawn()),
    "frozen_encoder": lambda: recipes.frozen_encoder(*at(RESID), WIDTH, K, drawn()),
    "end_to_end": lambda: recipes.end_to_end(NETWORK, *at(RESID), WIDTH, K, drawn()),
}
OF_SEVERAL: dict[str, Callable[[], Recipe]] = {
    "transcoder": lambda: recipes.transcoder(MLPS[0], MLPS[1], rows(), WIDTH, K, generator=drawn()),
    "transcoder, skip": lambda: recipes.transcoder(MLPS[0], MLPS[1], rows(), WIDTH, K, skip=True, generator=drawn()),
    "cross_layer_transcoder": lambda: recipes.cross_layer_transcoder(MLPS[::2], MLPS[1::2], rows(), WIDTH, K, drawn()),
    "crosscoder": lambda: recipes.crosscoder([RESID, Site("resid_post.1")], rows(), WIDTH, K, drawn()),
}


def explained(made: Recipe, held_out: Rows) -> float:
    dictionary = made.dictionary
    target = dictionary.target(held_out)
    error = target - dictionary.reconstruct(dictionary.gather(held_out))
    return 1 - (error.pow(2).sum() / (target - target.mean(-2, keepdim=True)).pow(2).sum()).item()


def test_every_recipe_is_here() -> None:
    named = {n for n, f in vars(recipes).items() if getattr(f, "__annotations__", {}).get("return") is Recipe}
    assert named == {name.split(",")[0] for name in OF_ONE_SITE | OF_SEVERAL}


@pytest.mark.parametrize("name", OF_ONE_SITE | OF_SEVERAL)
def test_a_recipe_learns_and_is_saved(name: str, tmp_path: Path) -> None:
    made, held_out = (OF_ONE_SITE | OF_SEVERAL)[name](), rows(seed=99)
    batches = [tokens(64, s) for s in range(12)] if name == "end_to_end" else [rows(seed=s) for s in range(1, 13)]
    with torch.no_grad():
        before = explained(made, held_out)
    for _ in fit(made.dictionary, (batches * STEPS)[:STEPS], made.objective, lr=1e-2, clip=1.0):
        pass
    with torch.no_grad():
        after = explained(made, held_out)
        assert after > max(before, 0.3)
        save_dictionary(made.dictionary, tmp_path)
        again = load_dictionary(tmp_path)
        x = made.dictionary.gather(held_out)
        assert torch.equal(again.encode(x).dense(), made.dictionary.encode(x).dense())
        assert torch.equal(again.reconstruct(x), made.dictionary.reconstruct(x))
    assert again.reads == made.dictionary.reads and again.writes == made.dictionary.writes


@pytest.mark.parametrize("which", ["decoder", "encoder"])
def test_what_is_frozen_stays(which: str) -> None:
    made = getattr(recipes, f"frozen_{which}")(*at(RESID), WIDTH, K, drawn())
    name = {"decoder": "W_dec", "encoder": "W_enc"}[which]
    before = made.dictionary.get_parameter(name).clone()
    list(fit(made.dictionary, [rows()] * 5, made.objective, lr=1e-2))
    torch.testing.assert_close(made.dictionary.get_parameter(name), before)


def test_a_linear_layer_is_all_skip() -> None:
    """Where the output is linear in the input, the skip connection takes it over and leaves the codes little to do."""
    x = torch.randn(2000, 8)
    both = Rows({"mlp_in.0": x, "mlp_out.0": x @ torch.randn(8, 8)})
    made = recipes.transcoder(MLPS[0], MLPS[1], both, 16, 1, skip=True, generator=drawn())
    list(fit(made.dictionary, [both] * 600, made.objective, lr=1e-2))
    assert explained(made, both) > 0.99
