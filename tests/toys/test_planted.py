"""The planted network answers rightly, its sites are what their names say, and its circuit is all that counts."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.toys.planted import CIRCUIT, LETTERS, STREAM, answer, class_of, planted, planted_pairs, row


def test_every_row_is_answered_rightly(generator: torch.Generator) -> None:
    model, _ = planted()
    pairs = planted_pairs(40, generator)
    for side, ids in ((pairs.clean, pairs.right), (pairs.corrupt, pairs.wrong)):
        logits = model.module(side.ids)[:, -1, LETTERS : LETTERS + 4]
        assert (logits.argmax(-1) + LETTERS).equal(ids)
    assert (pairs.right != pairs.wrong).all()


def test_a_row_holds_one_copy_and_its_answer_by_reading_it(generator: torch.Generator) -> None:
    for ids in (row(generator) for _ in range(20)):
        assert len(set(ids)) == len(ids) - 1
        assert answer(ids) == class_of(ids[ids.index(ids[-1]) + 1])


@torch.no_grad()
def test_its_sites_are_what_their_names_say(generator: torch.Generator) -> None:
    model, _ = planted()
    rows = planted_pairs(3, generator).clean
    trace = model.run(rows, read=model.sites("*"))
    for i in (0, 1):
        torch.testing.assert_close(trace[f"resid_mid.{i}"], trace[f"resid_pre.{i}"] + trace[f"attn_out.{i}"])
        torch.testing.assert_close(trace[f"resid_post.{i}"], trace[f"resid_mid.{i}"] + trace[f"mlp_out.{i}"])
        torch.testing.assert_close(
            torch.einsum("bhqk,bkhd->bqhd", trace[f"pattern.{i}"], trace[f"v.{i}"]), trace[f"z.{i}"]
        )
    torch.testing.assert_close(model.module(rows.ids[:, :5]), trace["logits"][:, :5])  # no letter sees a later one


def test_what_is_written_where_does_not_overlap() -> None:
    taken = [i for r in STREAM._ranges.values() for i in r]
    assert sorted(taken) == list(range(STREAM.d))


def test_no_pairs_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match="0 pairs are asked for"):
        planted_pairs(0, generator)
    assert len(CIRCUIT) == 8
