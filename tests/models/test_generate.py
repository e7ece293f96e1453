"""What a model says next does not depend on the cache, nor on where the padding stands."""

import pytest
import torch

from microtome.core.edit import Edit, add, patch, zero
from microtome.core.errors import Refusal, SiteNeverFired
from microtome.core.inputs import Tokens
from microtome.models.hooked import HookedModel
from tests.models.zoo import RAGGED, SAYING, batch, model


def texts(tokens: Tokens) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(tokens.ids, tokens.mask, strict=True)]


def edits(m: HookedModel) -> list[Edit]:
    """Steering from the prompt's end on; a place in the prompt, one counted from its end, and one not yet said."""
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    return [
        add(vector, 2.0, m.site("resid_post.0").at(pos=slice(-1, None))),
        add(vector.flip(0), 3.0, m.site("resid_pre.1").at(pos=1)),
        zero(m.site("z.1").at(head=1, pos=(0, -2, 8))),
        add(vector, -3.0, m.site("attn_out.1").at(pos=7)),
    ]


@pytest.mark.parametrize("name", SAYING)
@pytest.mark.parametrize("edited", [False, True])
def test_cache_and_padding_change_no_token(name: str, edited: bool) -> None:
    m = model(name)
    said = [
        texts(m.generate(Tokens.of(RAGGED, left=left), tokens=6, edit=edits(m) if edited else [], cache=cache))
        for left in (False, True) for cache in (False, True)
    ]  # fmt: skip
    assert all(each == said[0] for each in said)
    assert [row[: len(prompt)] for row, prompt in zip(said[0], RAGGED, strict=True)] == RAGGED


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "opt"])
def test_greedy_text_is_transformers_own(name: str) -> None:
    m = model(name)
    prompt = torch.tensor(RAGGED[:1])
    theirs = m.module.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False, eos_token_id=None
    )
    assert m.generate(prompt, tokens=8).ids.tolist() == theirs.tolist()


def test_an_edit_of_values_holds_although_a_cache_would_hide_it() -> None:
    m = model("llama")
    edit = [zero(m.site("v.0").at(pos=2)), zero(m.site("pattern.1").at(query=slice(-1, None), key=0))]
    assert (
        len({str(texts(m.generate(Tokens.of(RAGGED), tokens=6, edit=edit, cache=cache))) for cache in (True, False)})
        == 1
    )


def test_a_patch_meets_its_position() -> None:
    m = model("llama")
    source = m.run(Tokens.of([[30, 31, 32], [33, 34, 35], [36, 37, 38]]), read=["resid_post.0"])
    place = m.site("resid_post.0").at(pos=2)
    said = [texts(m.generate(Tokens.of(RAGGED), tokens=5, edit=[patch(place, source)], cache=c)) for c in (True, False)]
    assert said[0] == said[1] != texts(m.generate(Tokens.of(RAGGED), tokens=5))


def test_an_edit_that_never_met_its_position_is_an_error() -> None:
    m = model("llama")
    with pytest.raises(SiteNeverFired, match="changed no place"):
        m.generate(batch("llama"), tokens=3, edit=[zero(m.site("resid_post.0").at(pos=40))])


def test_rows_end_with_the_stop_token() -> None:
    m = model("llama")
    plain = texts(m.generate(Tokens.of(RAGGED), tokens=6))
    stop = plain[1][4]
    ended = texts(m.generate(Tokens.of(RAGGED), tokens=6, stop=stop))
    assert ended[1] == plain[1][: plain[1].index(stop, 3) + 1] and len(ended[1]) <= 5


def test_sampling_repeats_with_its_generator() -> None:
    m = model("llama")
    drawn = [
        m.generate(batch("llama"), tokens=5, temperature=1.5, generator=torch.Generator().manual_seed(s)).ids
        for s in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_pictures_are_not_continued() -> None:
    with pytest.raises(Refusal, match="not Arrays"):
        model("vit").generate(batch("vit"))
