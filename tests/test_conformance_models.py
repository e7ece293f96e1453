"""Truths over every model (docs: architecture, "Truths that are tests"); the numbers are those of that list."""

import pytest
import torch

from microtome.core.edit import patch
from microtome.core.inputs import Tokens
from microtome.models.hooked import HookedModel
from tests.models.zoo import NAMES, RAGGED, batch, model


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def m(name: str) -> HookedModel:
    return model(name)


def hooks(m: HookedModel) -> int:
    return sum(len(x._forward_hooks) + len(x._forward_pre_hooks) for x in m.module.modules())


@pytest.mark.parametrize("ragged", [False, True])
def test_1_a_run_without_edits_is_the_modules_own_forward(m: HookedModel, name: str, ragged: bool) -> None:
    rows = batch(name, ragged=ragged)
    assert torch.equal(m.run(rows)["logits"], rows.call(m.module).logits)
    streams = [s for s in m.sites() if s.name.split(".")[0] not in ("scores", "pattern")]
    assert torch.equal(m.run(rows, read=streams)["logits"], rows.call(m.module).logits)


@pytest.mark.parametrize("ragged", [False, True])
def test_2_patching_a_site_with_itself_changes_nothing(m: HookedModel, name: str, ragged: bool) -> None:
    rows = batch(name, ragged=ragged)
    plain = m.run(rows, read=m.sites())
    for site in m.sites("*"):
        if site.name.endswith(".0") or "." not in site.name:
            eager = ["scores.1"] if "scores.1" in plain else []
            assert torch.equal(
                m.run(rows, read=[*eager, "logits"], edit=[patch(site, plain)])["logits"], plain["logits"]
            ), site


@pytest.mark.parametrize("left", [False, True])
def test_13_a_ragged_batch_is_its_rows(m: HookedModel, name: str, left: bool) -> None:
    if name == "vit":
        pytest.skip("vit takes pictures of one size, so no batch of them is ragged")
    rows = Tokens.of(RAGGED, left=left)
    source = m.run(Tokens.of([row[::-1] for row in RAGGED], left=not left), read=["resid_pre.1"])
    edit = [patch(m.site("resid_pre.1").at(pos=(0, -1)), source)]
    for edits in ([], edit):
        trace = m.run(rows, read=["resid_post.1", "logits"], edit=edits)
        for i, row in enumerate(RAGGED):
            one = Tokens.of([row])
            alone = m.run(
                one, read=["resid_post.1", "logits"], edit=[patch(e.site, source.rows(slice(i, i + 1))) for e in edits]
            )
            for site in ("resid_post.1", "logits"):
                real = trace[site][i][rows.mask[i]]
                assert (real - alone[site][0]).abs().max() <= 1e-5 * alone[site].abs().max(), site


def test_10_no_hook_remains_after_an_exception(m: HookedModel, name: str) -> None:
    def fails(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("on purpose")

    before = hooks(m)
    for site in m.sites("*"):
        with (
            pytest.raises(RuntimeError, match="on purpose"),
            m.hooks({s.name: lambda x: x for s in m.sites("*")} | {site.name: fails}),
        ):
            batch(name).call(m.module)
        assert hooks(m) == before
