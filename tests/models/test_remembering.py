"""A pass over the last columns alone ends where the whole pass does, in every family, wherever the padding lies."""

import pytest
import torch

from microtome.core.edit import patch
from microtome.core.effects import effects
from microtome.core.inputs import Tokens
from microtome.core.measure import LOGITS, logit_diff
from microtome.models.hooked import HookedModel
from microtome.models.remembering import Shared
from tests.models import zoo

MEASURE = logit_diff(torch.tensor([5, 6, 7]), torch.tensor([8, 9, 10]))


@pytest.mark.parametrize("name", zoo.SAYING)
@pytest.mark.parametrize("left", [False, True])
def test_the_last_columns_of_some_copies_are_those_of_the_whole(name: str, left: bool) -> None:
    model, inputs = zoo.model(name), zoo.batch(name, ragged=True, left=left)
    memory = model.remember(inputs)
    assert memory is not None and isinstance(inputs, Tokens)
    whole = model.run(inputs, read=["resid_post.0", "logits"])
    real = inputs.mask[:, 3:].repeat(2, 1)
    for layer, stream in ((-1, None), (0, whole["resid_post.0"][:, 3:].repeat(2, 1, 1))):
        last = memory.resume(2, layer, stream, 3, read=[LOGITS])[LOGITS]
        expected = whole["logits"][:, 3:].repeat(2, 1, 1)
        torch.testing.assert_close(last[real], expected[real], rtol=1e-5, atol=1e-5)


def test_a_sweep_runs_no_column_before_the_first_that_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = zoo.model("gpt2"), zoo.batch("gpt2")
    assert isinstance(inputs, Tokens)
    source = model.run(Tokens(inputs.ids.flip(0), inputs.mask), read=["z.0", "k.0"])
    assert model.remember(inputs) is not None
    new: list[int] = []
    update = Shared.update
    monkeypatch.setattr(
        Shared, "update", lambda self, k, v, *a, **s: new.append(k.shape[-2]) or update(self, k, v, *a, **s)
    )
    effects(model, inputs, [patch(model.site("z.0").at(pos=4), source)], MEASURE)
    assert new == [2, 2]  # of six columns, in each of two layers
    effects(model, inputs, [patch(model.site("k.0").at(pos=4), source)], MEASURE)
    assert new == [2, 2], "keys also show what came before, so the whole row must run"


def test_a_network_that_looks_ahead_or_keeps_nothing_is_run_whole(network: HookedModel) -> None:
    assert network.remember(Tokens.of([[1, 2, 3]])) is None
    assert zoo.model("bert").remember(zoo.batch("bert")) is None
    assert zoo.model("vit").remember(zoo.batch("vit")) is None
