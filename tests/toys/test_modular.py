"""The quick form computes what the plain one does, and both what the equation says."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.core.inputs import Arrays
from microtome.models.load import load
from microtome.toys.modular import ModularAddition


def network(seeds: int | None = None) -> ModularAddition:
    made = ModularAddition(7, 8, 2, 12, generator=torch.Generator().manual_seed(0), seeds=seeds).double()
    for bias in (made.b_in, made.b_out):
        torch.nn.init.normal_(bias, generator=torch.Generator().manual_seed(1))
    return made


@pytest.mark.parametrize("seeds", [None, 2])
def test_answers_are_the_logits_at_equals_with_their_gradients(seeds: int | None) -> None:
    made = network(seeds)
    pairs = made.pairs()[::3]
    plain, quick = made(pairs)[..., -1, :], made.answers(pairs[:, 0], pairs[:, 1])
    assert torch.allclose(plain, quick, atol=1e-9)
    ways = [torch.autograd.grad(y.pow(2).sum(), list(made.parameters())) for y in (plain, quick)]
    assert all(torch.allclose(one, other, atol=1e-7) for one, other in zip(*ways, strict=True))


def test_a_seed_is_the_network_alone() -> None:
    made = network(2)
    assert torch.allclose(made(made.pairs())[1], made.one(1)(made.pairs()), atol=1e-9)


def test_the_last_position_by_hand() -> None:
    made, ids = network(), torch.tensor([3, 5, 7])
    x = made.embed[ids] + made.place
    written = torch.zeros(8, dtype=torch.double)
    for h in range(2):
        scores = torch.stack([(made.w_k[h] @ x[i]) @ (made.w_q[h] @ x[2]) / 2.0 for i in range(3)])
        mixed = sum(w * (made.w_v[h] @ x[i]) for i, w in enumerate(scores.softmax(0)))
        written = written + made.w_o[h] @ mixed
    mid = x[2] + written
    last = mid + made.w_out @ torch.relu(made.w_in @ mid + made.b_in) + made.b_out
    assert torch.allclose(made(ids[None])[0, -1], made.unembed @ last, atol=1e-9)


def test_every_site_is_met_and_the_truth_reads_the_logits() -> None:
    made = network()
    model, truth = load(made, sites=made.sites), made.truth()
    trace = model.run(Arrays((made.pairs(),)), read=model.sites())
    assert torch.allclose(truth.encode(trace[truth.reads[0]]).dense(), trace["logits"], atol=1e-9)
    assert torch.allclose(trace["resid_mid.0"], trace["embed"] + trace["attn_out.0"])
    assert torch.allclose(trace["resid_post.0"], trace["resid_mid.0"] + trace["mlp_out.0"])


def test_all_pairs_are_there_once_with_their_sum() -> None:
    made = network()
    found = {(a, b): t for (a, b, _), t in zip(made.pairs().tolist(), made.target(made.pairs()).tolist(), strict=True)}
    assert found == {(a, b): (a + b) % 7 for a in range(7) for b in range(7)}


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(Refusal, match="p = 113, 10 dimensions, 4 heads"):
        ModularAddition(113, 10, generator=torch.Generator())
