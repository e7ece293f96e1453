"""A load ends with a look at what was loaded: what cannot be true is refused, what may be wrong is said."""

from collections.abc import Iterator

import pytest
import torch

from microtome.core.errors import NotFinite
from microtome.core.fit import fit
from microtome.core.rows import Rows
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.formats.plain import plain
from microtome.dictionaries.formats.self_check import check, duplicates, measured, other_convention
from microtome.dictionaries.objectives import Reconstruction
from microtome.dictionaries.sae import SAE
from tests.dictionaries.formats import examples


def trained() -> tuple[SAE, Rows]:
    """An autoencoder of activations that lie far from zero, so that its bias matters."""
    torch.manual_seed(0)
    x = torch.randn(512, 8) @ torch.randn(8, 8) + 20 * torch.linspace(-1, 1, 8)
    made = SAE(Site("resid_post.0"), 8, 32, TopK(4))
    made.b_dec.data.copy_(x.mean(0))

    def batches() -> Iterator[torch.Tensor]:
        yield from [x] * 150

    for _ in fit(made, batches(), Reconstruction(), lr=1e-2):
        pass
    return made.requires_grad_(False), Rows({"resid_post.0": x})


def test_the_convention_that_fits_better_is_pointed_at() -> None:
    made, rows = trained()
    right = check(made, "x", subtracts=True, rows=rows)
    assert not right.warnings
    wrong = other_convention(made, subtracts=True)
    found = check(wrong, "x", subtracts=False, rows=rows)
    assert len(found.warnings) == 1 and "if the decoder's bias were taken from the input" in found.warnings[0]
    assert f"would be {right.explained_variance:.3f}" in found.warnings[0]


def test_the_other_convention_of_the_other_is_itself() -> None:
    made = examples.sae("gated", "none")
    twice = other_convention(other_convention(made, True), False)
    torch.testing.assert_close(twice.b_enc, made.b_enc)
    literal = plain(made)
    torch.testing.assert_close(
        other_convention(made, True).encode(examples.rows()).dense(),
        type(made).encode(examples_free(literal), examples.rows()).dense(), atol=1e-5, rtol=1e-5,
    )  # fmt: skip


def examples_free(what):
    """The same numbers, read as if nothing were taken from the input."""
    from dataclasses import replace

    return replace(what, subtracts=False).dictionary()


def test_explained_variance_of_the_mean_is_zero_and_of_the_truth_one() -> None:
    x = examples.rows()
    rows = Rows({"resid_post.3": x})
    made = examples.sae("relu", "none")
    made.W_dec.data.zero_()
    made.b_dec.data.copy_(x.mean(0))
    assert measured(made, rows)[1] == pytest.approx(0.0, abs=1e-6)
    whole = SAE(Site("resid_post.3"), 6, 6, TopK(6)).requires_grad_(False)
    whole.W_enc.data.copy_(torch.eye(6))
    whole.W_dec.data.copy_(torch.eye(6))
    whole.b_dec.data.copy_(x.min(0).values)
    assert measured(whole, rows)[1] == pytest.approx(1.0, abs=1e-6)


def test_what_the_metadata_says_stands_beside_what_was_measured() -> None:
    made, rows = trained()
    said = " ".join(check(made, "x", claims={"l0": 4.0}, rows=rows).lines)
    assert "L0 4.0 (the metadata says 4)" in said and "warning" not in said
    doubts = check(made, "x", claims={"l0": 40.0, "width": 31, "d_in": 8}, rows=rows).warnings
    assert any("the metadata says width 31, and the weights have 32" in d for d in doubts)
    assert any("L0 is 4.0 where the metadata says 40" in d for d in doubts) and len(doubts) == 2


def test_rows_of_zeros_and_rows_twice_are_said() -> None:
    made = examples.sae("relu")
    made.W_dec.data[3] = 0
    made.W_dec.data[[5, 7]] = made.W_dec.data[2].clone()
    warnings = check(made, "x").warnings
    assert warnings == ("1 components write nothing", "2 components write exactly what another one writes")
    assert not check(examples.sae("relu"), "x").warnings and not check(examples.cross_layer(), "x").warnings


def test_duplicates_are_counted_as_by_comparing_all() -> None:
    rows = torch.randint(0, 2, (60, 4)).float()
    assert duplicates(rows) == 60 - len(rows.unique(dim=0))


def test_numbers_that_are_not_finite_are_refused() -> None:
    made = examples.sae("relu")
    made.W_enc.data[0, :2] = torch.tensor([float("nan"), float("inf")])
    with pytest.raises(NotFinite, match="W_enc holds 2 numbers that are not finite"):
        check(made, "x")


def test_a_dictionary_is_described_in_a_sentence() -> None:
    assert check(examples.sae("topk"), "saelens").lines[0] == "saelens: SAE at resid_post.3, 14 components, TopK of 3"
    assert "from mlp_in.2 to mlp_out.2" in check(examples.transcoder("relu"), "x").lines[0]
