"""Reading, editing and naming: what a run promises on any network."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from microtome.core.edit import ablate, add, fill, function, patch, project_out, zero
from microtome.core.errors import Conflict, NoSuchPosition, NoSuchSite, Refusal, SiteNeverFired
from microtome.core.inputs import Arrays, Tokens
from microtome.core.linear import Coordinates, Linear
from microtome.models.hooked import HookedModel, canonical
from microtome.models.load import load
from tests.models.zoo import RAGGED, Convolutions, batch, model


@pytest.fixture
def m() -> HookedModel:
    return model("llama")


@pytest.fixture
def rows() -> Tokens:
    return Tokens.of(RAGGED)


# ---------------------------------------------------------------- edits


def test_edits_look_at_what_arrived_and_the_trace_holds_what_left(m: HookedModel, rows: Tokens) -> None:
    """Two directions that are not orthogonal: had the second looked at what the first left, their order would matter."""
    site = m.site("resid_post.0")
    directions = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    both = Linear(site, site, directions, directions)
    arrived = m.run(rows, read=[site])[site]
    left = m.run(rows, read=[site], edit=[ablate(both[0]), ablate(both[1])])[site]
    expected = arrived - (arrived @ directions.T) @ directions
    torch.testing.assert_close(left, expected)


def test_the_order_of_edits_does_not_matter(m: HookedModel, rows: Tokens) -> None:
    site, generator = m.site("resid_mid.0"), torch.Generator().manual_seed(1)
    vector = torch.randn(32, generator=generator)
    edits = [
        add(vector, 2.0, site),
        project_out(vector, site.at(pos=-1)),
        fill(site.at(pos=1), vector),
        zero(m.site("z.1").at(head=2)),
    ]
    logits = [m.run(rows, edit=list(order))["logits"] for order in permutations(edits)]
    assert all(torch.allclose(logits[0], other, atol=1e-5) for other in logits)


def test_two_replacements_at_one_place_are_refused(m: HookedModel, rows: Tokens) -> None:
    site = m.site("resid_mid.0")
    with pytest.raises(Conflict, match="would both replace"):
        m.run(rows, edit=[zero(site), zero(site.at(pos=0))])
    m.run(rows, edit=[zero(site.at(pos=1)), zero(site.at(pos=0))])


def test_an_edit_of_the_stream_goes_past_the_branch(m: HookedModel, rows: Tokens) -> None:
    """resid_mid is the stream, not the norm's input alone; mlp_in is the branch alone."""
    trace = m.run(rows, read=["resid_post.1", "mlp_out.1"], edit=[zero(m.site("resid_mid.1"))])
    torch.testing.assert_close(trace["resid_post.1"], trace["mlp_out.1"], atol=1e-6, rtol=0)
    plain = m.run(rows, read=["resid_mid.1"])
    branch = m.run(rows, read=["resid_post.1", "mlp_out.1"], edit=[zero(m.site("mlp_in.1"))])
    torch.testing.assert_close(branch["resid_post.1"], plain["resid_mid.1"] + branch["mlp_out.1"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "opt", "phi3", "bloom", "gpt_neox"])
def test_ablating_a_neuron_is_zeroing_its_weights(name: str) -> None:
    m, tokens = model(name), batch(name)
    site = m.site("mlp_act.1")
    width = m.run(tokens, read=[site])[site].shape[-1]
    ablated = m.run(tokens, edit=[ablate(Coordinates(site, width)[7])])["logits"]
    down = m.module.get_submodule(next(e.through[0] for e in m.family.equations if e.sources == ("mlp_act.1",)))
    weight = down.weight.data
    column = weight[7] if weight.shape[0] == width else weight[:, 7]  # GPT-2 keeps its weights transposed
    kept = column.clone()
    column.zero_()
    try:
        zeroed = m.run(tokens)["logits"]
    finally:
        column.copy_(kept)
    torch.testing.assert_close(ablated, zeroed, atol=1e-5, rtol=0)
    assert not torch.allclose(zeroed, m.run(tokens)["logits"], atol=1e-4)


# ---------------------------------------------------------------- refusals


def test_misspelt_sites_name_the_nearest(m: HookedModel) -> None:
    with pytest.raises(NoSuchSite, match=r"no site 'mlp_ou\.0'; did you mean 'mlp_out\.0'"):
        m.site("mlp_ou.0")
    with pytest.raises(NoSuchSite, match="lists them"):
        m.sites("nothing.like.it*")


def test_a_position_out_of_range_is_refused(m: HookedModel, rows: Tokens) -> None:
    with pytest.raises(NoSuchPosition, match="row 1 has 3 tokens, so no position 4"):
        m.run(rows, edit=[zero(m.site("resid_post.0").at(pos=4))])


def test_an_edit_that_changes_nothing_is_an_error(m: HookedModel, rows: Tokens) -> None:
    with pytest.raises(SiteNeverFired, match="changed no place"):
        m.run(rows, edit=[zero(m.site("resid_post.0").at(pos=slice(50, 60)))])


def test_a_site_that_the_forward_pass_does_not_reach_is_an_error() -> None:
    class Skips(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(self.used(x)) if x.sum() > 100 else self.used(x)

    m = load(Skips())
    with pytest.raises(SiteNeverFired, match="unused"):
        m.run(torch.ones(3, 2), read=["used", "unused"])
    with pytest.raises(Refusal, match="passed twice"):
        m.run(torch.full((3, 2), 99.0), read=["used", "unused"])


# ---------------------------------------------------------------- names and shapes


def test_module_paths_are_sites(m: HookedModel, rows: Tokens) -> None:
    trace = m.run(rows, read=["model.layers.1.mlp", "mlp_out.1", "model.layers.1.mlp.in", "mlp_in.1"])
    assert torch.equal(trace["model.layers.1.mlp"], trace["mlp_out.1"])
    assert torch.equal(trace["model.layers.1.mlp.in"], trace["mlp_in.1"])


def test_aliases_follow_what_the_family_has() -> None:
    assert canonical("blocks.3.attn.hook_z") == "z.3" and canonical("hook_embed") == "embed"
    assert model("llama").site("blocks.1.attn.hook_q").name == "q_raw.1"
    assert model("gpt2").site("blocks.1.attn.hook_q").name == "q.1"
    assert model("llama").site("blocks.1.attn.hook_rot_k").name == "k.1"
    assert canonical("transformer.h.0.attn") == "transformer.h.0.attn"


def test_a_convolutional_network_has_channels_and_places() -> None:
    m = load(Convolutions().eval())
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert [m.site(str(i)).axes for i in range(6)] == ["batch d y x"] * 4 + ["batch d"] * 2
    assert m.site("0.in").axes == "batch d y x"
    plain = m.run(x, read=[str(i) for i in range(6)])
    assert torch.equal(plain["5"], m.module(x))
    left = m.run(x, read=["2"], edit=[zero(m.site("2").at(d=1, y=2))])["2"]
    assert not left[:, 1, 2].any() and left[:, 0].all() and left[:, 1, 3].any()
    with pytest.raises(Refusal, match=r"model\.site\('0', axes"):
        m.run(x, read=[m.site("0", axes="batch d")])


def test_positions_of_pictures_are_the_sites_own() -> None:
    m, pictures = model("vit"), batch("vit")
    assert isinstance(pictures, Arrays)
    site = m.site("resid_post.0")
    left = m.run(pictures, read=[site], edit=[zero(site.at(pos=-1))])[site]
    assert not left[:, 4].any() and left[:, :4].all()
    with pytest.raises(NoSuchPosition, match="5 positions"):
        m.run(pictures, edit=[zero(site.at(pos=5))])


def test_padding_does_not_matter_to_a_patch_at_positions(m: HookedModel) -> None:
    left, right = Tokens.of(RAGGED, left=True), Tokens.of(RAGGED)
    source = m.run(Tokens.of([row[::-1] for row in RAGGED]), read=["z.0", "pattern.1"])
    for place in (m.site("z.0").at(pos=(0, -1), head=(1, 3)), m.site("pattern.1").at(query=-1, key=0)):
        a, b = (m.run(tokens, edit=[patch(place, source)])["logits"] for tokens in (left, right))
        for i, row in enumerate(RAGGED):
            torch.testing.assert_close(a[i, -len(row) :], b[i, : len(row)], atol=1e-5, rtol=0)


def test_functions_of_what_arrives(m: HookedModel, rows: Tokens) -> None:
    doubled = m.run(rows, read=["attn_out.0"], edit=[function(m.site("attn_out.0"), lambda x: 2 * x)])["attn_out.0"]
    assert torch.equal(doubled, 2 * m.run(rows, read=["attn_out.0"])["attn_out.0"])
