"""A TopK autoencoder learns from a real model, is written in every format that can hold it, and comes back the same."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.fit import fit
from microtome.core.site import Site
from microtome.data.corpus import corpus
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.formats.registry import FORMATS, load_any, write
from microtome.dictionaries.normalisation import LayerNorm, Normalisation, UnitMeanSquare
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.models.load import load
from microtome.store.stream import stream

STEPS, BATCH, WIDTH, K = 80, 256, 192, 8
WHY_NOT = {  # of a TopK autoencoder, in units that are one scale for all dimensions
    "gemma_scope": "holds a threshold for each latent, and TopK has none",
    "gemma_scope_2": "holds a threshold for each latent, and TopK has none",
    "llama_scope": "has JumpReLU, and no TopK",
    "openai": "has TopK of layer-normed tokens, .*; this is TopK with Unchanged; fit it with LayerNorm",
    "circuit_tracer": "hold transcoders that read one kind of site and write another",
    "circuit_tracer_clt": "cross-layer format holds no SAE",
}


class Trained(NamedTuple):
    sae: SAE
    rows: Tensor  # never seen
    begun: float  # the share unexplained in the first step
    ended: float


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[Tensor]:
    """Batches of the residual stream over real stories."""
    model = load(str(shared_data / "stories260k-hf"))
    text = corpus(model, [str(shared_data / "text" / "tinystories_2mb.txt")], "all", context=64)
    found = stream(model, text, "resid_post.2", BATCH, tokens=(STEPS + 1) * BATCH, spread=0)
    return [batch for batch in found if isinstance(batch, Tensor)]


def trained(rows: list[Tensor], units: Normalisation) -> Trained:
    sae = SAE(Site("resid_post.2"), rows[0].shape[1], WIDTH, TopK(K), units, generator=torch.Generator().manual_seed(0))
    losses = [step.loss for step in fit(sae, rows[:-1], Reconstruction() + AuxK(WIDTH), lr=3e-3)]
    return Trained(sae, rows[-1], losses[0], losses[-1])


@pytest.fixture(scope="module")
def plain(rows: list[Tensor]) -> Trained:
    return trained(rows, UnitMeanSquare.of(rows[0]))


@pytest.fixture(scope="module")
def layer_normed(rows: list[Tensor]) -> Trained:
    return trained(rows, LayerNorm(rows[0].shape[1]))


@torch.no_grad()
def assert_comes_back(given: Trained, name: str, folder: Path) -> None:
    """Codes, reconstruction and directions, to 1e-5 of their size."""
    write(given.sae, folder, name)
    back = load_any(folder, allow_pickle=True)
    assert back.reads == given.sae.reads
    for one, other in (
        (given.sae.encode(given.rows).dense(), back.encode(given.rows).dense()),
        (given.sae.reconstruct(given.rows), back.reconstruct(given.rows)),
        (given.sae.directions().write, back.directions().write),
    ):
        assert (one - other).norm() <= 1e-5 * one.norm()


@torch.no_grad()
def test_both_have_learned(plain: Trained, layer_normed: Trained) -> None:
    for one in (plain, layer_normed):
        assert one.ended < 0.6 * one.begun
        missed = (one.rows - one.sae.reconstruct(one.rows)).pow(2).sum()
        assert missed < 0.5 * (one.rows - one.rows.mean(0)).pow(2).sum()
        assert one.sae.encode(one.rows).dense().count_nonzero(1).max() == K


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - WHY_NOT))
def test_every_format_that_can_hold_it_gives_it_back(plain: Trained, name: str, tmp_path: Path) -> None:
    assert_comes_back(plain, name, tmp_path)


@pytest.mark.parametrize("name", WHY_NOT)
def test_every_other_says_why_it_cannot(plain: Trained, name: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=WHY_NOT[name]):
        write(plain.sae, tmp_path, name)


@pytest.mark.parametrize("name", ["openai", "saelens", "microtome"])
def test_topk_of_layer_normed_tokens_is_what_openai_holds(layer_normed: Trained, name: str, tmp_path: Path) -> None:
    assert_comes_back(layer_normed, name, tmp_path)
