"""Erasing a concept: the least change of activations after which no linear probe finds it.

LEACE, Belrose et al. 2023 (arXiv 2306.03819), theorem 4.3. With x of covariance S and labels z, of cross-covariance C
with x, W = S^(-1/2) and P the orthogonal projection onto the columns of W C,

    x  ->  x - W^+ P W (x - mean)

leaves no covariance with the labels, and moves x least, in the mean square of any norm.
"""

# pyright: reportUnknownMemberType=false

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.linear import Linear
from microtome.core.site import Site

LEAST = 1e-6  # of the largest variance or singular value: below it there is none


def erased_concept(site: Site, x: Float[Tensor, "rows d"], labels: Float[Tensor, "rows labels"]) -> Linear:
    """What linear probes read of the labels, as components: ablating all of them erases the labels (`eraser`).

    There are as many components as the labels span. Raises Refusal where the labels do not vary, or x does not with
    them.
    """
    rows, z = x.double(), labels.double()
    centred, z = rows - rows.mean(0), z - z.mean(0)
    if not z.any():
        raise Refusal(f"all {len(x)} labels are the same, so there is nothing to erase; give examples of both kinds")
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(rows))
    there = variance > LEAST * variance[-1]
    root, axes = variance[there].sqrt(), axes[:, there]
    cross = (axes / root).T @ (centred.T @ z / len(rows))
    left, size, _ = torch.linalg.svd(cross, full_matrices=False)
    found = left[:, size > LEAST * size[0].clamp(min=LEAST)]
    if not found.shape[1]:
        raise Refusal("activations do not vary with the labels, so no linear probe finds them already")
    read, write = found.T @ (axes / root).T, found.T @ (axes * root).T
    return Linear(site, site, read.to(x.dtype), write.to(x.dtype), rows.mean(0).to(x.dtype))


def erase(concept: Linear, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
    """Rows without the concept. In a network: ablate every component of it."""
    return x - concept.encode(x).times(concept.write)
