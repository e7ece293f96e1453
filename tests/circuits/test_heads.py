"""What heads attend to and what they do with it, on patterns and weights whose answer is known."""

import pytest
import torch

from microtome.circuits.direct_logits import direct_logits
from microtome.circuits.head_weights import LowRank, head_weights
from microtome.circuits.heads import (
    after_copies,
    attended,
    attention_scores,
    before,
    copies,
    copy_score,
    copying,
    name_movers,
    repeated_tokens,
)
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from tests.models.zoo import batch, model


def pattern_of(where: torch.Tensor) -> torch.Tensor:
    """A head that attends evenly to these places, and to itself where there are none."""
    marked = where.float()
    marked = marked + torch.eye(marked.shape[-1]) * (~where.any(-1))[..., None]
    return (marked / marked.sum(-1, keepdim=True))[:, None]


@pytest.mark.parametrize("left", [False, True])
def test_heads_that_do_one_thing_score_one_in_it_and_nothing_else(left: bool) -> None:
    rows = Tokens.of([[5, 6, 7, 5, 6, 7, 5], [8, 9, 8, 9]], left=left)
    places = (before(rows), copies(rows), after_copies(rows))
    for i, mine in enumerate(places):
        scores = [float(attended(pattern_of(mine), where)) for where in places]
        assert scores[i] == pytest.approx(1)
        if i == 0:
            assert scores[1] == 0
    assert float(attended(pattern_of(places[2]), places[1])) == 0


def test_places_are_counted_in_real_tokens() -> None:
    rows = Tokens.of([[5, 6, 5, 6], [5, 5]], left=True)
    assert copies(rows)[0].nonzero().tolist() == [[2, 0], [3, 1]]
    assert after_copies(rows)[0].nonzero().tolist() == [[2, 1], [3, 2]]
    assert copies(rows)[1].nonzero().tolist() == [[3, 2]]
    assert before(rows)[1].nonzero().tolist() == [[3, 2]]
    assert not after_copies(rows)[1].any()  # what followed the first 5 is the second, which is the query itself


def test_on_repeated_tokens_induction_is_the_diagonal(generator: torch.Generator) -> None:
    rows = repeated_tokens(range(3, 90), 8, 4, generator, begin=1)
    assert rows.ids.shape == (4, 17)
    assert (rows.ids[:, 1:9] == rows.ids[:, 9:]).all()
    assert all(len(set(r)) == 8 for r in rows.ids[:, 1:9].tolist())
    m = model("llama")
    found = attention_scores(m, rows)
    pattern = m.run(rows, read=[m.site("pattern.1")])["pattern.1"]
    diagonal = pattern.diagonal(-7, 2, 3)[..., 2:].mean((0, 2))  # from the first repeated token on
    torch.testing.assert_close(found.induction[1], diagonal)
    torch.testing.assert_close(found.previous[1], pattern.diagonal(-1, 2, 3).mean((0, 2)))
    torch.testing.assert_close(found.duplicate[1], pattern.diagonal(-8, 2, 3)[..., 1:].mean((0, 2)))


def test_text_without_repetition_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match="no token here has one for the duplicate score"):
        attention_scores(model("llama"), Tokens.of([[3, 4, 5]]))
    with pytest.raises(Refusal, match="9 different tokens are asked for and the vocabulary has 5"):
        repeated_tokens(range(5), 9, 1, generator)


def test_copying_is_the_sign_of_the_eigenvalues(generator: torch.Generator) -> None:
    left = torch.linalg.qr(torch.randn(12, 3, generator=generator)).Q
    assert copying(LowRank(left, left.T)) == pytest.approx(1)
    assert copying(LowRank(left, -left.T)) == pytest.approx(-1)
    turns = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 0]])
    assert copying(LowRank(left @ turns, left.T)) == pytest.approx(0, abs=1e-6)


def test_copying_from_token_to_logit_is_that_of_the_whole_matrix(generator: torch.Generator) -> None:
    embedding, unembedding = torch.randn(20, 6, generator=generator), torch.randn(6, 20, generator=generator)
    ov = LowRank(torch.randn(6, 2, generator=generator), torch.randn(2, 6, generator=generator))
    values = torch.linalg.eigvals((embedding @ ov.dense() @ unembedding).double())
    expected = float(values.sum().real / values.abs().sum())
    assert copying(ov, embedding, unembedding) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("left", [False, True])
def test_name_movers_by_hand(left: bool) -> None:
    m, rows = model("llama"), Tokens.of([[5, 6, 7, 8, 6], [9, 10, 11], [4, 3, 9, 7]], left=left)
    answer = torch.tensor([7, 9, 3])
    found = name_movers(m, rows, answer)
    single = [Tokens.of([row]) for row in ([5, 6, 7, 8, 6], [9, 10, 11], [4, 3, 9, 7])]
    looked, added = [], []
    for row, to in zip(single, answer, strict=True):
        pattern = m.run(row, read=[m.site("pattern.1")])["pattern.1"]
        looked.append(pattern[0, :, -1, row.ids[0] == to].sum(-1))
        added.append(direct_logits(m, row, to[None]).heads()[1, :, 0, -1])
    torch.testing.assert_close(found.attention[1], torch.stack(looked).mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.direct_logit[1], torch.stack(added).mean(0), atol=1e-4, rtol=1e-3)
    together = torch.corrcoef(torch.stack((torch.stack(looked)[:, 2], torch.stack(added)[:, 2])))[0, 1]
    torch.testing.assert_close(found.toward[1, 2], together, atol=1e-3, rtol=1e-3)
    with pytest.raises(Refusal, match="the answer of row 0, token 90, is not in it"):
        name_movers(m, rows, torch.tensor([90, 9, 3]))


@torch.no_grad()
def test_the_copy_score_reads_what_ov_makes_of_the_stream() -> None:
    m, rows = model("llama"), batch("llama")
    weights = head_weights(m, rows, 1)
    module = m.module.model  # type: ignore[union-attr]
    stream = m.run(rows, read=[m.site("resid_post.0")])["resid_post.0"]
    seen = module.layers[1].input_layernorm(stream)  # type: ignore[index, operator, union-attr]
    for head in range(4):
        said = m.module.lm_head(module.norm(seen @ weights.ov(head).dense()))  # type: ignore[operator, union-attr]
        hits = (said.topk(20, -1).indices == rows.ids[..., None]).any(-1).float().mean()  # type: ignore[union-attr]
        torch.testing.assert_close(copy_score(m, rows, 1, top=20)[head], hits)
