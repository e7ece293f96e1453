"""A pass that begins in the middle ends where the whole pass ends; what was read at one place is what the whole holds there."""

import pytest
import torch

from microtome.core.edit import patch, zero
from microtome.core.effects import effects
from microtome.core.errors import NoSuchSite, Refusal
from microtome.core.inputs import Tokens
from microtome.core.measure import LOGITS, cross_entropy, logit_diff
from microtome.core.site import Site
from tests.models import zoo

LAST = LOGITS.at(pos=-1)
KINDS = ["resid_pre", "z", "k", "v", "pattern", "attn_out", "resid_mid", "mlp_act", "mlp_out", "resid_post"]


@pytest.mark.parametrize("name", zoo.NAMES)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_resumed_pass_ends_where_the_whole_one_does(name: str, layer: int) -> None:
    model, inputs = zoo.model(name), zoo.batch(name)
    whole = model.run(inputs, read=[*model.sites("resid_post.*"), *model.sites("logits")])
    resumed = model.resume(inputs, layer, whole[f"resid_post.{layer}"], read=model.sites("logits"))
    torch.testing.assert_close(resumed["logits"], whole["logits"], rtol=0, atol=1e-6)
    again = model.run(inputs, read=model.sites("logits"))
    assert torch.equal(again["logits"], whole["logits"]), "a block still stands aside"


@pytest.mark.parametrize("name", zoo.SAYING)
@pytest.mark.parametrize("left", [False, True])
def test_many_cells_of_a_ragged_batch_are_one_cell_and_one_row_at_a_time(name: str, left: bool) -> None:
    model, inputs = zoo.model(name), zoo.batch(name, ragged=True, left=left)
    assert isinstance(inputs, Tokens)
    other = Tokens(torch.where(inputs.mask, (inputs.ids + 7) % 90 + 3, inputs.ids), inputs.mask)
    sites = [s for kind in KINDS for s in offered(model, f"{kind}.1")]
    clean = model.run(other, read=sites)
    edits = [patch(place, clean) for site in sites for place in places(site)]
    right, wrong = torch.tensor([5, 6, 7]), torch.tensor([8, 9, 10])
    found = effects(model, inputs, edits, logit_diff(right, wrong), rows=24)
    for edit, effect in zip(edits, found, strict=True):
        whole = logit_diff(right, wrong)(model.run(inputs, read=[LOGITS], edit=[edit]))
        torch.testing.assert_close(effect.after, whole, rtol=1e-5, atol=1e-5, msg=lambda m, e=edit: f"{e}: {m}")
    for r, row in enumerate(zoo.RAGGED):
        alone = logit_diff(right[r : r + 1], wrong[r : r + 1])(model.run(Tokens.of([row]), read=[LOGITS]))
        torch.testing.assert_close(found.before[r : r + 1], alone, rtol=1e-5, atol=1e-5)


def offered(model, name: str) -> list[Site]:
    try:
        return [model.site(name)]
    except NoSuchSite:
        return []


def places(site: Site) -> list[Site]:
    axes = site.axes.split()
    if "query" in axes:
        return [site.at(head=1, query=-1, key=0)]
    return [site.at(pos=0), site.at(pos=-1), *([site.at(head=1, pos=-1)] if "head" in axes else [])]


def test_logits_of_one_place_are_those_of_the_whole_and_stand_under_that_place() -> None:
    model, inputs = zoo.model("gemma2"), zoo.batch("gemma2", ragged=True, left=True)
    narrow, whole = model.resume(inputs, read=[LAST]), model.run(inputs, read=[LOGITS])
    torch.testing.assert_close(narrow[LAST], whole[LAST], rtol=0, atol=1e-6)
    with pytest.raises(NoSuchSite, match="'logits' was not read; this trace holds logits\\[pos=-1\\]"):
        narrow[LOGITS]


def test_what_lies_before_is_refused() -> None:
    model, inputs = zoo.model("llama"), zoo.batch("llama")
    stream = model.run(inputs, read=["resid_post.0"])["resid_post.0"]
    with pytest.raises(Refusal, match="z.0 comes before what block 0 returns"):
        model.resume(inputs, 0, stream, read=[model.site("z.0")])
    with pytest.raises(Refusal, match="embed comes before"):
        model.resume(inputs, 0, stream, read=[LOGITS], edit=[zero(model.site("embed"))])


def test_an_edit_of_the_stream_itself_holds_and_an_exception_leaves_no_block_aside() -> None:
    model, inputs = zoo.model("gptj"), zoo.batch("gptj")
    edit = zero(model.site("resid_post.0").at(pos=1))
    found = effects(model, inputs, [edit], cross_entropy())
    torch.testing.assert_close(found.after[0], cross_entropy()(model.run(inputs, edit=[edit])), rtol=1e-5, atol=1e-6)
    before = model.run(inputs)["logits"]
    with pytest.raises(RuntimeError):
        model.resume(inputs, 0, torch.zeros(1, 1, 5), read=[LOGITS])
    assert torch.equal(model.run(inputs)["logits"], before)
