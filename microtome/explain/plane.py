"""A map: components as points in a plane, near one another where they write nearly the same.

Two ways to draw it. Principal axes keep the largest distances and need nothing else. UMAP keeps who is next to whom
(McInnes et al. 2018, arXiv 1802.03426), and needs `pip install microtome[umap]`.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.errors import Refusal


def principal(directions: Float[Tensor, "components d"]) -> Float[Tensor, "components 2"]:
    """Along the two axes in which directions of length 1 differ most."""
    unit = normalize(directions, dim=1)
    centred = unit - unit.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -2:].flip(1)
    return centred @ axes


def neighbourly(directions: Float[Tensor, "components d"], *, seed: int = 0) -> Float[Tensor, "components 2"]:
    """By UMAP on cosines, begun from the principal axes. Raises Refusal where umap-learn is not installed."""
    try:
        from umap import UMAP
    except ImportError:
        raise Refusal("a map by UMAP needs umap-learn: pip install 'microtome[umap]', or draw it by pca") from None
    begin = principal(directions)
    scaled = (10 * begin / begin.abs().max().clamp(min=1e-9)).numpy()
    drawn = UMAP(metric="cosine", init=scaled, random_state=seed, n_jobs=1).fit_transform(directions.numpy())
    return torch.as_tensor(drawn).float()
