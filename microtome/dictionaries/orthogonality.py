"""A penalty on latents that point the same way."""

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.dictionaries.objectives import Attempt, Objective


class Orthogonality(Objective):
    """The mean over latents of their squared largest cosine with another of the same chunk.

    OrtSAE: Korznikov et al. 2025 (arXiv 2509.22033). The decoder is dealt anew into chunks of `chunk` latents at every
    step, so the cost grows with the width and not with its square.
    """

    def __init__(self, chunk: int = 4096, generator: torch.Generator | None = None):
        super().__init__()
        self.chunk, self.generator = chunk, generator

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        rows = attempt.coder.directions().write[..., 0, :]
        flat = torch.nn.functional.normalize(rows.movedim(-2, 0).flatten(1), dim=1)
        dealt = torch.randperm(len(flat), generator=self.generator).to(flat.device).split(self.chunk)
        largest = [nearest(flat[chunk]) for chunk in dealt if len(chunk) > 1]
        return {"orthogonality": torch.cat(largest).pow(2).mean()}


def nearest(directions: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
    """Each direction's largest cosine with another."""
    cosines = directions @ directions.T
    return cosines.masked_fill(torch.eye(len(cosines), dtype=torch.bool, device=cosines.device), -1.0).amax(1)
