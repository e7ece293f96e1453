"""What heads, MLPs and the embedding write toward a logit sums to that logit, in every family that has the sites."""

import pytest
import torch

from microtome.circuits.direct_logits import Stream, component_logits, direct_logits, source_logits
from microtome.core.edit import fill
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.linear import Coordinates
from microtome.models.hooked import HookedModel
from microtome.models.neurons import neurons
from tests import toys
from tests.models.zoo import CONFIGS, RAGGED, SAYING, batch, model

SUMMED = [name for name in SAYING if name != "opt/post-norm"]
RIGHT, WRONG = torch.tensor([3, 4, 5]), torch.tensor([6, 7, 8])


def uncapped(name: str, logits: torch.Tensor) -> torch.Tensor:
    cap = getattr(model(name).module.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.atanh(logits / cap)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", SUMMED)
def test_the_parts_sum_to_the_logit_difference(name: str, left: bool) -> None:
    m, rows = model(name), Tokens.of(RAGGED, left=left)
    logits = uncapped(name, m.run(rows)["logits"])
    expected = (logits[torch.arange(3), :, RIGHT] - logits[torch.arange(3), :, WRONG])[rows.mask]
    found = direct_logits(m, rows, RIGHT, WRONG)
    torch.testing.assert_close(found.values.sum(0)[rows.mask], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.total[rows.mask], expected, atol=1e-4, rtol=1e-4)
    heads = found.heads()
    assert heads.shape[:2] == (2, 4)
    torch.testing.assert_close(torch.stack(list(found.by_layer().values())).sum(0), found.values.sum(0))


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_a_head_adds_what_the_stream_is_read_for_without_it(name: str) -> None:
    """By brute force: W_O on one head's z alone, and the norms held by hand."""
    m, rows = model(name), batch(name)
    stream = Stream(m, rows)
    readout = stream.readout(RIGHT, None)
    found = direct_logits(m, rows, RIGHT).heads()
    raw = "attn_out_raw.1" if "attn_out_raw.1" in stream.sites else "attn_out.1"
    z = stream.clean["z.1"]
    only = torch.zeros_like(z)
    only[:, :, 2] = z[:, :, 2]
    with_head, without = (
        m.run(rows, read=[m.site(raw)], edit=[fill(m.site("z.1"), x)])[raw] for x in (only, torch.zeros_like(z))
    )
    written = with_head - without
    vector = stream.at(raw, readout).vector
    torch.testing.assert_close(found[1, 2], (vector * written).sum(-1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [n for n in SUMMED if n != "mixtral"])
def test_what_a_head_took_from_each_position_sums_to_what_it_adds(name: str) -> None:
    m, rows = model(name), batch(name)
    found = source_logits(m, rows, 1, RIGHT, WRONG)
    torch.testing.assert_close(
        found.sum(-1), direct_logits(m, rows, RIGHT, WRONG).heads()[1].transpose(0, 1), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_neurons_of_the_last_layer_sum_to_their_mlp(name: str) -> None:
    m, rows = model(name), batch(name)
    parts = neurons(m, 1)
    found = component_logits(m, rows, parts, RIGHT, WRONG)
    direct = direct_logits(m, rows, RIGHT, WRONG)
    whole = next(v for w, v in zip(direct.writers, direct.last(), strict=True) if w == ("mlp", 1, -1))
    stream = Stream(m, rows)
    readout = stream.readout(RIGHT, WRONG)
    raw = stream.at(parts.writes[0].name, readout)
    bias = raw.offset - readout.offset + (0 if parts.bias is None else raw.vector @ parts.bias)
    torch.testing.assert_close(found.sum(1) + bias[:, -1], whole, atol=1e-4, rtol=1e-4)


def test_a_network_without_heads_or_norms_is_summed_too(network: HookedModel) -> None:
    rows = toys.rows(ragged=True)
    logits = network.run(rows)["logits"]
    found = direct_logits(network, rows, RIGHT)
    expected = logits[torch.arange(3), :, RIGHT]
    torch.testing.assert_close(found.values.sum(0)[rows.mask], expected[rows.mask])
    assert [str(w) for w in found.writers] == ["embed", "mlp 0", "mlp 1", "bias"]
    torch.testing.assert_close(found.last()[:, 1], found.values[:, 1, 1])
    with pytest.raises(Refusal, match="no site z"):
        found.heads()


@pytest.mark.parametrize("name", ["bert", "opt/post-norm", "vit"])
def test_families_that_norm_the_stream_or_have_no_positions_are_refused(name: str) -> None:
    with pytest.raises(Refusal, match="norms the stream itself|no positions"):
        direct_logits(model(name), batch(name), RIGHT[: len(batch(name))])


def test_a_dictionary_that_does_not_write_to_the_stream_is_refused() -> None:
    m = model("llama")
    with pytest.raises(Refusal, match="direct logits are those of components that write"):
        component_logits(m, batch("llama"), Coordinates(m.site("z.0"), 48), RIGHT)


def test_every_family_is_here() -> None:
    assert set(SUMMED) | {"bert", "vit", "opt/post-norm"} == set(CONFIGS)
