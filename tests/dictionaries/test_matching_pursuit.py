"""Matching pursuit chooses as its definition says, values and gradients, whichever way the choice is made."""

import pytest
import torch
from torch import Tensor

from microtome.core.site import Site
from microtome.dictionaries import matching_pursuit
from microtome.dictionaries.matching_pursuit import MatchingPursuit

SITE = Site("resid_post.0", "batch pos d")


def pursuit(width: int = 24, d: int = 8, k: int = 5) -> MatchingPursuit:
    return MatchingPursuit(SITE, d, width, k, generator=torch.Generator().manual_seed(0)).double()


def rows(count: int = 40, d: int = 8) -> Tensor:
    return torch.randn(count, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_definition(latents: Tensor, x: Tensor, k: int) -> Tensor:
    """Dense codes of one row after another, all through autograd."""
    codes = []
    for r in x:
        code = torch.zeros(len(latents), dtype=x.dtype)
        for _ in range(k):
            best = int((latents @ r).argmax())
            value = torch.relu(latents[best] @ r)
            code, r = code + value * torch.eye(len(latents), dtype=x.dtype)[best], r - value * latents[best]
        codes.append(code)
    return torch.stack(codes)


@pytest.mark.parametrize("products", [0, 1 << 13])
def test_codes_and_gradients_are_those_of_the_definition(products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching_pursuit, "GRAM", products)
    sae, x = pursuit(), rows()
    found, expected = sae.encode(x).dense(), by_definition(sae.W_dec, x, sae.k)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    (mine,) = torch.autograd.grad((found * weights).sum(), [sae.W_dec])
    (theirs,) = torch.autograd.grad((expected * weights).sum(), [sae.W_dec])
    torch.testing.assert_close(mine, theirs)


def test_what_is_left_never_grows_and_orthonormal_latents_are_a_plain_top_k() -> None:
    x = rows()
    errors = [(x - pursuit(k=k).decode(pursuit(k=k).encode(x))).norm(dim=1) for k in (1, 3, 6)]
    assert (errors[0] >= errors[1]).all() and (errors[1] >= errors[2]).all()
    sae = pursuit(width=8, k=3)
    sae.W_dec.data = torch.linalg.qr(rows(8)).Q
    plain = torch.relu(x @ sae.W_dec.T).topk(3, dim=1)
    torch.testing.assert_close(sae.encode(x).top(3).values.sort(1).values, plain.values.sort(1).values)
