"""OV and QK as found equal what the network computes, in every family; low-rank algebra equals the dense."""

import pytest
import torch

from microtome.circuits.composition import composition, random_composition
from microtome.circuits.head_weights import HeadWeights, LowRank, head_weights, stream_weights
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from tests.models.zoo import SAYING, batch, model

NORMED = ("qwen3", "gemma3_text", "olmo2")  # queries and keys, by head
HIDDEN = ("gptj",)  # rotates inside its own forward
ASKING = [n for n in SAYING if n not in (*NORMED, *HIDDEN)]


def low_rank(rows: int, columns: int, rank: int, generator: torch.Generator) -> LowRank:
    return LowRank(torch.randn(rows, rank, generator=generator), torch.randn(rank, columns, generator=generator))


def random_heads(d: int, generator: torch.Generator, heads: int = 3, rank: int = 4) -> HeadWeights:
    q, k, v = (torch.randn(heads, d, rank, generator=generator) for _ in range(3))
    return HeadWeights(q, k, v, torch.randn(heads, rank, d, generator=generator))


def test_low_rank_algebra_is_that_of_the_dense_matrix(generator: torch.Generator) -> None:
    a, b = low_rank(9, 9, 3, generator), low_rank(9, 9, 2, generator)
    torch.testing.assert_close(a.then(b).dense(), a.dense() @ b.dense())
    torch.testing.assert_close(b.then(a).dense(), b.dense() @ a.dense())
    assert a.then(b).left.shape[1] == b.then(a).left.shape[1] == 2
    torch.testing.assert_close(a.T.dense(), a.dense().T)
    torch.testing.assert_close(a.norm(), a.dense().norm())
    torch.testing.assert_close(a.singular_values(), torch.linalg.svdvals(a.dense())[:3])
    dense = torch.linalg.eigvals(a.dense().double()).abs().sort(descending=True).values[:3].float()
    torch.testing.assert_close(a.eigenvalues().abs().sort(descending=True).values, dense, atol=1e-4, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", ASKING)
def test_qk_at_two_positions_makes_the_differences_of_scores(name: str) -> None:
    """Queries and keys of two rows at the same places differ by what QK makes of the difference in what is read."""
    m, rows, query, key = model(name), batch(name), 4, 1
    weights = head_weights(m, rows, 1, query=query, key=key)
    trace = m.run(rows, read=[m.site(f"{n}.1") for n in ("attn_in", "q", "k")])
    x, q, k = trace["attn_in.1"], trace["q.1"], trace["k.1"]
    k = k.repeat_interleave(q.shape[2] // k.shape[2], 2)
    for head in range(4):
        asks, is_asked = x[0, query] - x[1, query], x[0, key] - x[1, key]
        found = asks @ weights.qk(head).dense() @ is_asked
        expected = (q[0, query, head] - q[1, query, head]) @ (k[0, key, head] - k[1, key, head])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", ASKING)
def test_ov_weighted_by_the_pattern_makes_the_differences_of_what_is_written(name: str) -> None:
    m, rows = model(name), batch(name)
    weights = head_weights(m, rows, 1)
    raw = "attn_out_raw.1" if "attn_out_raw.1" in m.family.sited else "attn_out.1"
    trace = m.run(rows, read=[m.site(n) for n in ("attn_in.1", "pattern.1", raw)])
    moved = [trace["pattern.1"][:, h] @ trace["attn_in.1"] @ weights.ov(h).dense() for h in range(4)]
    summed = torch.stack(moved).sum(0)
    rest = trace[raw] - summed
    torch.testing.assert_close(rest, rest[:1, :1].expand_as(rest), atol=1e-4, rtol=1e-3)  # the biases alone


@pytest.mark.parametrize("name", NORMED)
def test_normed_queries_have_no_qk_matrix(name: str) -> None:
    with pytest.raises(Refusal, match="is not affine .* queries and keys are normed"):
        head_weights(model(name), batch(name), 1)


def test_a_rotation_that_cannot_be_seen_is_refused_but_where_it_cancels() -> None:
    m, rows = model("gptj"), batch("gptj")
    head_weights(m, rows, 1)
    with pytest.raises(Refusal, match="rotates them inside its own forward"):
        head_weights(m, rows, 1, query=3, key=1)
    with pytest.raises(Refusal, match="the row has 6 tokens, so no position 9; give a longer one"):
        head_weights(model("llama"), batch("llama"), 1, query=9)


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt_neox", "olmo"])
def test_stream_weights_read_the_stream_as_its_norm_does(name: str) -> None:
    """A small step of the stream that leaves its scale alone is seen by attention, times the gain, over the scale."""
    m, rows = model(name), batch(name)
    raw, folded = head_weights(m, rows, 1), stream_weights(m, rows, 1)
    trace = m.run(rows, read=[m.site("resid_pre.1"), m.site("attn_in.1")])
    stream, seen = (trace[n][0, 1] - trace[n][0, 2] for n in ("resid_pre.1", "attn_in.1"))
    pre = trace["resid_pre.1"][0, 1:3]
    centres = name in ("gpt2", "gpt_neox", "olmo")
    scales = (pre - (pre.mean(-1, keepdim=True) if centres else 0)).pow(2).mean(-1).sqrt()
    stream = pre[0] / scales[0] - pre[1] / scales[1]
    torch.testing.assert_close(stream @ folded.v[2], seen @ raw.v[2], atol=1e-3, rtol=1e-3)


def test_composition_is_that_of_dense_products(generator: torch.Generator) -> None:
    one, two = random_heads(10, generator), random_heads(10, generator)
    found = composition(one, two)
    for w in range(3):
        for r in range(3):
            ov, qk, ov2 = one.ov(w).dense(), two.qk(r).dense(), two.ov(r).dense()
            for score, then in ((found.q, qk), (found.k, qk.T), (found.v, ov2)):
                torch.testing.assert_close(score[w, r], (ov @ then).norm() / ov.norm() / then.norm())


def test_the_baseline_is_the_root_mean_square_over_rotations(generator: torch.Generator) -> None:
    one, two = random_heads(12, generator), random_heads(12, generator)
    drawn = random_composition(one, two, 400, generator)
    root = drawn.pow(2).mean(0).sqrt()
    torch.testing.assert_close(root, torch.full_like(root, composition(one, two).baseline), atol=0.02, rtol=0)


def test_a_head_that_reads_what_another_wrote_stands_out(generator: torch.Generator) -> None:
    d = 64
    one, two = random_heads(d, generator), random_heads(d, generator)
    two.k[1] = one.o[2].T
    found = composition(one, two).excess()
    assert found.k.argmax() == 2 * 3 + 1
    assert found.k[2, 1] > 0.3
    assert max(float(found.q.max()), float(found.v.max())) < 0.15


def test_heads_of_different_streams_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match="8 wide and the reader's 10"):
        composition(random_heads(8, generator), random_heads(10, generator))


def test_inputs_may_be_padded() -> None:
    m = model("llama")
    ragged = head_weights(m, Tokens.of([[1, 2], [3, 4, 5]]), 0)
    whole = head_weights(m, Tokens.of([[1, 2]]), 0)
    torch.testing.assert_close(ragged.q, whole.q)
