"""Pairs of prompts for the small models of every family, and what is asked of them."""

import torch

from microtome.core.inputs import Tokens
from microtome.core.measure import logit_diff
from tests.models import zoo

JOINED = [name for name in zoo.SAYING if name != "opt/post-norm"]  # families whose stream is a sum of what is written
MEASURE = logit_diff(torch.tensor([5, 6, 7]), torch.tensor([8, 9, 10]))


def pairs(name: str, *, ragged: bool = True, left: bool = False) -> tuple[Tokens, Tokens]:
    """Clean and corrupt prompts, aligned: every token but a row's first is another."""
    clean = zoo.batch(name, ragged=ragged, left=left)
    assert isinstance(clean, Tokens)
    other = (clean.ids + 7) % 90 + 3
    return clean, Tokens(torch.where(clean.mask & (clean.positions > 0), other, clean.ids), clean.mask)


def one_row(inputs: Tokens, row: int) -> Tokens:
    """A row alone, without its padding."""
    return Tokens.of(inputs.ids[row][inputs.mask[row]][None])
