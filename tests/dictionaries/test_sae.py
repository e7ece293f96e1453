"""A step of the sparse autoencoder is the step of its dense formula; dead latents come back to life."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.fit import fit
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import Activation, ReLU, TopK
from microtome.dictionaries.files import load_dictionary, save_dictionary
from microtome.dictionaries.normalisation import UnitMeanSquare
from microtome.dictionaries.objectives import AuxK, Objective, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.sparsity import Sparsity

SITE, D, WIDTH, K = Site("resid_post.0"), 8, 40, 4


def made(activation: Activation | None = None, seed: int = 0) -> SAE:
    generator = torch.Generator().manual_seed(seed)
    sae = SAE(SITE, D, WIDTH, activation or TopK(K), UnitMeanSquare.of(sample()), generator=generator)
    with torch.no_grad():
        sae.b_enc.copy_(0.1 * torch.randn(WIDTH, generator=generator))
        sae.b_dec.copy_(0.1 * torch.randn(D, generator=generator))
        sae.W_enc.add_(0.1 * torch.randn(WIDTH, D, generator=generator))
    return sae


def sample(rows: int = 300) -> Tensor:
    return (
        3 * torch.randn(rows, D, generator=torch.Generator().manual_seed(9)) @ torch.diag(torch.linspace(0.2, 2, D)) + 5
    )


def dense_codes(sae: SAE, x: Tensor, k: int | None) -> tuple[Tensor, Tensor]:
    """Normalised inputs, and the codes by the formula of the docstring."""
    normal = (x - sae.normalisation.mean.double()) / sae.normalisation.scale.double()
    pre = (normal - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    if k is None:
        return normal, pre.relu()
    best = pre.topk(k, -1)
    return normal, torch.zeros_like(pre).scatter(-1, best.indices, best.values.relu())


@pytest.mark.parametrize(("activation", "k"), [(TopK(K), K), (ReLU(), None)])
def test_the_gradients_of_one_step_are_those_of_the_dense_formula(activation: Activation, k: int | None) -> None:
    sae, x = made(activation), sample(64)
    sum(Reconstruction()(sae, x).values()).backward()
    found = {name: p.grad for name, p in sae.named_parameters()}
    double = made(activation).double()
    y = x.double()
    _, codes = dense_codes(double, y, k)
    scale, mean = double.normalisation.scale, double.normalisation.mean
    again = (codes @ double.W_dec + double.b_dec) * scale + mean
    ((y - again).pow(2).sum() / (y - y.mean(0)).pow(2).sum()).backward()
    for name, parameter in double.named_parameters():
        torch.testing.assert_close(found[name].double(), parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_the_sparsity_term_is_the_summed_activity_weighted_by_length() -> None:
    sae, x = made(ReLU()), sample(20)
    expected = (sae.encode(x).dense() * sae.W_dec.norm(dim=1)).sum() / 20
    torch.testing.assert_close(Sparsity()(sae, x)["sparsity"], expected)


def test_terms_add_and_scale_and_those_of_one_name_are_added_up() -> None:
    sae, x = made(), sample(20)
    once = Reconstruction()(sae, x)["unexplained"]
    torch.testing.assert_close((Reconstruction() + 0.5 * Reconstruction())(sae, x)["unexplained"], 1.5 * once)
    assert set((Reconstruction() + 2.0 * Sparsity() + AuxK(WIDTH))(sae, x)) == {"unexplained", "sparsity", "auxk"}


# ---------------------------------------------------------------- dead latents


def test_nothing_dead_costs_nothing() -> None:
    assert AuxK(WIDTH, dead_after=10**6)(made(), sample())["auxk"].item() == 0.0


def test_the_auxiliary_loss_is_its_formula_made_densely() -> None:
    sae, x = made(), sample(64)
    auxiliary = AuxK(WIDTH, dead_after=100, k_aux=3)
    dead = torch.tensor([1, 7, 20, 33, 39])
    auxiliary.silent[dead] = 1000
    with torch.no_grad():
        sae.b_enc[dead] -= 100.0  # so that they do not fire now either
    found = auxiliary(sae, x)["auxk"]
    sae.zero_grad()
    found.backward()
    gradients = sae.W_dec.grad.clone()
    with torch.no_grad():
        error = x - sae.decode(sae.encode(x))
    assert not torch.isin(sae.encode(x).entries().components, dead).any()
    weights = sae.W_dec.detach().clone().requires_grad_()
    normal = sae.normalisation(x)
    pre = ((normal - sae.b_dec) @ sae.W_enc.T + sae.b_enc)[:, dead].relu()
    best = pre.topk(3, 1)
    guess = torch.zeros_like(pre).scatter(1, best.indices, best.values) @ weights[dead] * sae.normalisation.scale
    expected = (error - guess).pow(2).sum() / (error - error.mean(0)).pow(2).sum() / 32
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, weights)[0], atol=1e-6, rtol=1e-4)


def test_silence_is_counted_in_tokens_since_the_last_firing() -> None:
    sae, auxiliary = made(), AuxK(WIDTH)
    for rows in (10, 7):
        auxiliary(sae, sample(300)[:rows])
    fired = [set(sae.encode(sample(300)[:rows]).entries().components.tolist()) for rows in (10, 7)]
    for latent, silent in enumerate(auxiliary.silent.tolist()):
        assert silent == (0 if latent in fired[1] else 7 if latent in fired[0] else 17)


def test_planted_dead_latents_are_revived() -> None:
    def fired_after(objective: Objective) -> int:
        sae, x = made(), sample(2000)
        planted = torch.arange(0, WIDTH, 2)
        with torch.no_grad():
            sae.b_enc[planted] -= 1.5
        list(fit(sae, [x[i : i + 200] for i in range(0, 2000, 200)] * 20, objective, lr=1e-2))
        return int(torch.isin(planted, sae.encode(x).entries().components).sum())

    assert fired_after(Reconstruction() + AuxK(WIDTH, dead_after=500)) > max(10, fired_after(Reconstruction()))


# ---------------------------------------------------------------- parts


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.floats(0.01, 1000), st.floats(-1000, 1000))
def test_normalisation_goes_there_and_back(rows: int, size: float, shift: float) -> None:
    x = size * torch.randn(rows, 3) + shift
    units = UnitMeanSquare.of(x)
    torch.testing.assert_close(units.undo(units(x)), x, rtol=1e-4, atol=1e-4 * (size + abs(shift)))
    if abs(shift) < 10 * size:
        assert units(x).pow(2).mean().item() == pytest.approx(1, rel=1e-3)


def test_a_constant_sample_is_centred_and_left_unscaled() -> None:
    units = UnitMeanSquare.of(torch.full((50, 3), 0.1))
    assert units.scale.item() == 1.0 and torch.equal(units(torch.full((2, 3), 0.1)), torch.zeros(2, 3))


def test_constraining_gives_the_decoder_unit_rows_and_leaves_the_rest() -> None:
    sae = made()
    with torch.no_grad():
        sae.W_dec.mul_(torch.linspace(0.1, 9, WIDTH)[:, None])
    before = sae.W_enc.clone()
    sae.constrain()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(WIDTH))
    assert torch.equal(sae.W_enc, before)


def test_the_same_generator_draws_the_same_dictionary() -> None:
    assert torch.equal(made(seed=3).W_dec, made(seed=3).W_dec) and not torch.equal(
        made(seed=3).W_dec, made(seed=4).W_dec
    )


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("activation", [TopK(K), ReLU()])
def test_what_is_saved_is_loaded_with_the_same_numbers(activation: Activation, tmp_path: Path) -> None:
    sae = made(activation)
    save_dictionary(sae, tmp_path / "d")
    again = load_dictionary(tmp_path / "d")
    x = sample()
    assert torch.equal(again.decode(again.encode(x)), sae.decode(sae.encode(x)))
    assert again.reads == sae.reads and all(torch.equal(v, again.state_dict()[n]) for n, v in sae.state_dict().items())
    assert sorted(f.name for f in (tmp_path / "d").iterdir()) == ["dictionary.json", "weights.safetensors"]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda f: (f / "dictionary.json").unlink(), "holds no dictionary.json, so no dictionary of this package"),
        (
            lambda f: (f / "dictionary.json").write_text('{"schema": "other/1"}'),
            "has schema 'other/1'; this version reads",
        ),
        (
            lambda f: (f / "dictionary.json").write_text('{"sche'),
            "dictionary.json is damaged; save the dictionary again",
        ),
        (
            lambda f: replace(f, '"SAE"', '"Autoencoder"'),
            "no dictionary of class Autoencoder; known: SAE, Transcoder",
        ),
        (lambda f: replace(f, '"TopK"', '"Swish"'), "no activation Swish; known: TopK, ReLU"),
        (lambda f: replace(f, '"width": 40', '"width": 39'), "does not hold what dictionary.json describes"),
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors is missing; save the dictionary again"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"\x10" + b"\0" * 40), "weights.safetensors is damaged"),
    ],
)
def test_a_folder_that_is_no_dictionary_is_refused(spoil: object, sentence: str, tmp_path: Path) -> None:
    save_dictionary(made(), tmp_path)
    spoil(tmp_path)
    with pytest.raises(Refusal, match=sentence):
        load_dictionary(tmp_path)


def replace(folder: Path, old: str, new: str) -> None:
    path = folder / "dictionary.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
