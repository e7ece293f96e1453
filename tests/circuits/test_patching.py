"""What is put in from another run arrives; what is put in from the same run changes nothing; a ragged batch is its rows."""

import pytest
import torch

from microtome.circuits.interchange import swap
from microtome.circuits.patching import denoise, mean_ablate, noise, recovered, resample
from microtome.core.edit import Edit, patch, project_out
from microtome.core.effects import effects
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.linear import Coordinates
from microtome.core.measure import Measure
from microtome.models.hooked import HookedModel
from tests.circuits.pairs_of_tokens import MEASURE, one_row, pairs
from tests.models import zoo

TAKEN_APART = {
    "resid_pre.1": ("pos",), "attn_out.0": ("pos",), "mlp_out.1": ("pos",), "q.1": ("head", "pos"), "k.0": ("head", "pos"),
    "v.1": ("pos", "head"), "z.0": ("head",), "pattern.1": ("head",), "resid_post.1": (),
}  # fmt: skip


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_every_cell_is_that_patch_in_a_run_of_its_own_and_a_row_is_that_row_alone(name: str, left: bool) -> None:
    model, (clean, corrupt) = zoo.model(name), pairs(name, left=left)
    for site_name, by in TAKEN_APART.items():
        site = model.site(site_name)
        found = denoise(model, clean, corrupt, MEASURE, [site], by=by)
        source = model.run(clean, read=[site])
        for effect in [found[0], found[len(found) - 1]]:
            edit = patch(effect.edits[0].site, source)
            expected = MEASURE(model.run(corrupt, edit=[edit]))
            torch.testing.assert_close(effect.after, expected, rtol=1e-4, atol=1e-5)
        measure = Measure(lambda t: difference(t, 1), MEASURE.reads, "the second row")
        alone = denoise(model, one_row(clean, 1), one_row(corrupt, 1), measure, [site], by=by)
        if "pos" not in by:
            torch.testing.assert_close(found.after[:, 1], alone.after[:, 0], rtol=1e-4, atol=1e-5)


def difference(trace, row: int) -> torch.Tensor:
    logits = trace[MEASURE.reads[0]]
    return logits[:, 5 + row] - logits[:, 8 + row]


def test_a_place_patched_with_itself_moves_nothing_and_that_is_said() -> None:
    clean, _ = pairs("llama")
    with pytest.raises(
        Refusal, match="logit difference is not moved at all by any of 3 patches, from patch resid_post.0"
    ):
        denoise(zoo.model("llama"), clean, clean, MEASURE, zoo.model("llama").sites("resid_post.0"), by=("pos",))


def test_the_whole_last_stream_restores_everything_and_noising_is_denoising_the_other_way() -> None:
    model, (clean, corrupt) = zoo.model("llama"), pairs("llama")
    last = model.sites("resid_post.1")
    values = [MEASURE(model.run(inputs)) for inputs in (clean, corrupt)]
    restored = denoise(model, clean, corrupt, MEASURE, last)
    torch.testing.assert_close(recovered(restored, values[0]), torch.ones(1))
    other = noise(model, corrupt, clean, MEASURE, last)
    assert torch.equal(other.after, restored.after)


def test_ragged_pairs_are_taken_apart_from_their_ends_and_even_ones_from_their_starts() -> None:
    model = zoo.model("gpt2")
    sites = model.sites("resid_post.*")
    ragged = denoise(model, *pairs("gpt2"), MEASURE, sites, by=("pos",)).grid("layer", "pos")
    even = denoise(model, *pairs("gpt2", ragged=False), MEASURE, sites, by=("pos",)).grid("layer", "pos")
    assert ragged.columns == ("pos", [-3, -2, -1]) and even.columns == ("pos", [0, 1, 2, 3, 4, 5])


def test_components_that_are_all_axes_together_are_the_site(network: HookedModel) -> None:
    clean, corrupt = Tokens.of([[3, 1, 4], [9, 2, 6]]), Tokens.of([[5, 8, 4], [7, 9, 6]])
    basis = Coordinates(network.site("resid_post.0"), 8)
    source = network.run(clean, read=basis.reads)
    measure = Measure(lambda t: t["logits"][:, -1, 1], (network.site("logits"),), "a logit")
    all_of_them: list[Edit] = [swap(component, source) for component in basis]
    found = effects(network, corrupt, [all_of_them, patch(basis.reads[0], source)], measure)
    torch.testing.assert_close(found.after[0], found.after[1])
    one = denoise(network, clean, corrupt, measure, [basis[2]], by=("pos",))
    assert len(one) == 3 and one.moved.abs().max() > 0


def test_a_mean_is_over_real_positions_and_resampling_leaves_no_row_its_own(generator: torch.Generator) -> None:
    model, (clean, _) = zoo.model("gpt2"), pairs("gpt2")
    site = model.site("z.0")
    trace = model.run(clean, read=[site])
    left = model.run(clean, read=[site], edit=[mean_ablate(site.at(head=1), trace)])[site]
    expected = torch.cat([trace[site][r][clean.mask[r]] for r in range(3)]).mean(0)
    torch.testing.assert_close(left[:, :, 1], expected[1].expand_as(left[:, :, 1]))
    assert torch.equal(left[:, :, 0], trace[site][:, :, 0])
    even, _ = pairs("gpt2", ragged=False)
    trace = model.run(even, read=[site])
    taken = model.run(even, read=[site], edit=[resample(site, trace, generator)])[site]
    origin = [next(o for o in range(3) if torch.equal(taken[r], trace[site][o])) for r in range(3)]
    assert sorted(origin) == [0, 1, 2] and all(o != r for r, o in enumerate(origin))


def test_a_direction_that_is_projected_out_is_gone() -> None:
    model, (clean, _) = zoo.model("gpt2"), pairs("gpt2")
    way, site = torch.randn(32), model.site("resid_post.0")
    left = model.run(clean, read=[site], edit=[project_out(way, site)])[site]
    torch.testing.assert_close(left @ way, torch.zeros(left.shape[:2]), rtol=0, atol=1e-4)


def test_what_cannot_be_patched_is_refused() -> None:
    model, (clean, corrupt) = zoo.model("gpt2"), pairs("gpt2")
    with pytest.raises(Refusal, match="pair 0 has 7 clean tokens and 2 corrupt ones"):
        denoise(model, clean, Tokens.of([[1, 2]] * 3), MEASURE, model.sites("z.0"))
    with pytest.raises(Refusal, match="cannot be taken apart by 'head'"):
        denoise(model, clean, corrupt, MEASURE, model.sites("mlp_out.0"), by=("head",))
    site = model.site("z.0")
    with pytest.raises(Refusal, match="there is one row; give at least 2"):
        resample(site, model.run(one_row(clean, 0), read=[site]))
