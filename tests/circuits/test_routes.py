"""What makes up a stream: shares are of what each writer wrote, sum to one, and a row of a ragged batch has its own."""

import pytest
import torch

from microtome.circuits.routes import routes
from tests.circuits.pairs_of_tokens import one_row, pairs
from tests.models import zoo


@pytest.mark.parametrize("name", ["gemma2", "gptj"])
def test_shares_of_a_reader_sum_to_one_and_a_ragged_batch_is_its_rows(name: str) -> None:
    model, (inputs, _) = zoo.model(name), pairs(name, left=True)
    found = routes(model, inputs)
    assert (found.each >= 0).all() and not found.each[:, ~found.anatomy.possible].any()
    torch.testing.assert_close(found.each.sum(1), torch.ones_like(found.each[:, 0]))
    for r in range(3):
        torch.testing.assert_close(routes(model, one_row(inputs, r)).each[0], found.each[r], rtol=1e-4, atol=1e-6)


def test_the_first_readers_read_the_embedding_alone() -> None:
    found = routes(zoo.model("llama"), pairs("llama")[0])
    assert all(found[f"input->a0.h{h}<q>"] == pytest.approx(1) for h in range(4))
