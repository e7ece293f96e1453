"""Distributed alignment search: the subspace of a site that carries a variable, learned by swapping it.

Geiger et al. 2023, Finding Alignments Between Interpretable Causal Variables and Distributed Neural Representations
(arXiv 2303.02536), section 3: x + R^T R (s - x), where the rows of R are orthonormal, is the base's activation with the
source's value of the variable in it; R is learned so that the network then gives the counterfactual answer.

A subspace found so may answer without being what the network uses: a swap can also push along a direction to which the
network is blind, and so wake one that lay still (Makelov et al. 2023, arXiv 2311.17030). So compare the accuracy with
that of a random subspace and of the whole site, and on counterfactuals that the search has not seen.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from microtome.circuits.interchange import Counterfactuals, Interchange, answers
from microtome.core.codes import Codes, DenseCodes, Entries, TopCodes
from microtome.core.component import Dictionary, Directions
from microtome.core.errors import Refusal
from microtome.core.inputs import At
from microtome.core.measure import LOGITS
from microtome.core.model import Model
from microtome.core.site import Site


@dataclass(frozen=True, eq=False)
class BlockCodes(Codes):
    """Components that span several directions each. The activity of one is the length of its coordinates."""

    coordinates: Float[Tensor, "*lead components rank"]
    width: int = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "width", self.coordinates.shape[-2])

    @property
    def shape(self) -> torch.Size:
        return self.coordinates.shape[:-2]

    def lengths(self) -> DenseCodes:
        """The length of each block's coordinates."""
        return DenseCodes(self.coordinates.norm(dim=-1))

    def dense(self) -> Float[Tensor, "... width"]:
        return self.lengths().dense()

    def top(self, n: int) -> TopCodes:
        return self.lengths().top(n)

    def entries(self) -> Entries:
        return self.lengths().entries()

    def of(self, component: int) -> Float[Tensor, "..."]:
        return self.lengths().of(component)

    def times(self, weights: Float[Tensor, "width d"]) -> Float[Tensor, "... d"]:
        return self.lengths().times(weights)

    def scaled(self, by: Float[Tensor, "width"]) -> "BlockCodes":
        return BlockCodes(self.coordinates * by[:, None])

    def sized(self, by: Float[Tensor, "..."]) -> "BlockCodes":
        return BlockCodes(self.coordinates * by[..., None, None])

    def part(self, start: int, stop: int) -> "BlockCodes":
        return BlockCodes(self.coordinates[..., start:stop, :])


class Subspace(Dictionary):
    """coordinates = R x;  what is written = R^T coordinates.  One component of rank r: the rows of R are orthonormal.

    Its activity is the length of what it holds, which has no sign. It can be swapped, ablated, scaled and masked.
    """

    def __init__(self, site: Site, basis: Float[Tensor, "rank d"]):
        """The span of some vectors. Raises Refusal where they are dependent, or none."""
        super().__init__()
        self.reads = self.writes = (site,)
        rank = int(torch.linalg.matrix_rank(basis.detach())) if len(basis) else 0
        if not 0 < rank == len(basis):
            raise Refusal(f"{len(basis)} vectors span a subspace of rank {rank}; give independent ones, at least one")
        self.basis = nn.Parameter(orthonormal(basis.detach()))

    @classmethod
    def random(cls, site: Site, d: int, rank: int, *, generator: torch.Generator | None = None) -> "Subspace":
        """Any subspace of this rank with equal chance: where a search begins, and what its end is compared with."""
        if not 1 <= rank <= d:
            raise Refusal(f"no subspace of {d} dimensions has rank {rank}; choose 1 to {d}")
        return cls(site, torch.randn(rank, d, generator=generator))

    @property
    def rank(self) -> int:
        """The dimension of the subspace."""
        return len(self.basis)

    def encode(self, x: Float[Tensor, "... d"]) -> Codes:
        return BlockCodes((x @ orthonormal(self.basis).T)[..., None, :])

    def decode(self, codes: Codes) -> Float[Tensor, "... d"]:
        """The projection of what was encoded. Raises Refusal for codes without coordinates."""
        return self.contribution(codes, 0)

    def contribution(self, codes: Codes, component: int) -> Float[Tensor, "... d"]:
        if not isinstance(codes, BlockCodes):
            raise Refusal(f"a Subspace decodes coordinates, and {type(codes).__name__} hold none; encode with it")
        return codes.coordinates[..., component, :] @ orthonormal(self.basis)

    def directions(self) -> Directions:
        rows = orthonormal(self.basis)[None]
        return Directions(rows, rows)

    @torch.no_grad()
    def constrain(self) -> None:
        """Keep the parameter itself orthonormal, so that steps of the search stay of one size."""
        self.basis.copy_(orthonormal(self.basis))


def orthonormal(vectors: Float[Tensor, "rank d"]) -> Float[Tensor, "rank d"]:
    """Orthonormal rows of the same span, the first along the first, and so on; orthonormal ones are left alone."""
    q, r = torch.linalg.qr(vectors.T)
    return (q * r.diagonal().sign()).T


def principal_angles(one: Float[Tensor, "p d"], other: Float[Tensor, "q d"]) -> Float[Tensor, "angles"]:
    """The angles between two subspaces, in radians, smallest first, min(p, q) of them: all 0 where one holds the other.

    By sines as well as cosines, which alone cannot tell angles below 1e-4 (Björck and Golub 1973).
    """
    a, b = (orthonormal(x.double()) for x in (one, other))
    if len(a) > len(b):
        a, b = b, a
    cosines = torch.linalg.svdvals(a @ b.T)
    sines = torch.linalg.svdvals(a - a @ b.T @ b).flip(0)
    return torch.where(cosines > 0.7, sines.clamp(max=1).asin(), cosines.clamp(max=1).acos())


class CounterfactualLoss:
    """How far the answers are from the counterfactual ones once a subspace is swapped: cross-entropy, in nats.

    An objective for `fit` over batches of `Counterfactuals`; what is learned is a dictionary of one component.
    """

    def __init__(self, model: Model, here: At | None = None, there: At | None = None, logits: Site = LOGITS):
        """Positions as of an `Interchange`; `logits` hold the answer, at the last token where there are tokens."""
        self.model, self.here, self.there, self.logits = model, here, there, logits

    def __call__(self, learned: Dictionary, batch: Counterfactuals) -> Mapping[str, Float[Tensor, ""]]:
        swapped = Interchange(learned[0], self.here, self.there)
        found = answers(self.model, batch, [swapped], self.logits)
        return {"counterfactual": F.cross_entropy(found, batch.wanted)}
