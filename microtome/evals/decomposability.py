"""Are components made of others? How much of what they write a small dictionary over their directions tells.

Leask et al. 2025, Sparse autoencoders do not find canonical units of analysis (arXiv 2502.04878): latents of one
autoencoder as data for another, a twenty-first as wide, of which 4 are active. Here it is judged on directions that it
has not seen, and beside it stand random directions, which share nothing.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.component import Dictionary

NARROWER, ACTIVE = 21, 4  # 2304 of 49,152 latents, 4 of them active
FOLDS = 5  # one direction in so many is held out
FEWEST = 10 * NARROWER  # directions of which something can be learned

Learn = Callable[[Float[Tensor, "directions d"], int, int], Dictionary]


def decomposed(dictionary: Dictionary, learn: Learn, generator: torch.Generator) -> Float[Tensor, "held_out 2"] | None:
    """(|x - x̂|², |x - mean|²) of each held-out direction of length 1, or None where there are too few to learn from.

    `learn` makes a dictionary out of rows, given its width and how many components are active.
    """
    rows = normalize(dictionary.directions().write.detach().flatten(1).float().cpu(), dim=1)
    if len(rows) < FEWEST:
        return None
    rows = rows[torch.randperm(len(rows), generator=generator)]
    held_out = torch.arange(len(rows)) % FOLDS == 0
    made = learn(rows[~held_out], len(rows) // NARROWER, ACTIVE)
    with torch.no_grad():
        missed = rows[held_out] - made.decode(made.encode(rows[held_out]))
    spread = rows[held_out] - rows[held_out].mean(0)
    return torch.stack((missed.square().sum(1), spread.square().sum(1)), 1)


def explained(sums: Float[Tensor, "... 2"]) -> Float[Tensor, "..."]:
    """1 - sum |x - x̂|² / sum |x - mean|²."""
    return 1 - sums[..., 0] / sums[..., 1]
