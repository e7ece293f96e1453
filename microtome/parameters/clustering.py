"""Parts that work together, as groups: merged as long as fewer bits then say which are active.

The minimum description length of Goodfire 2026 (VPD): a group that is active on a share s of rows costs
s (log2 k + alpha r) bits a row, where k groups are to be told apart and r parts are in it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from microtome.core.errors import Refusal


@dataclass(frozen=True)
class Groups:
    """Which parts are in each group, and the bits a row that this takes."""

    members: tuple[tuple[int, ...], ...]
    bits: float


def clusters(active: Bool[Tensor, "rows parts"], alpha: float = 1.0) -> Groups:
    """Greedy merging from single parts; parts that are never active stand in no group.

    A group is active where any of its parts is. Larger alpha keeps groups small. Raises Refusal for alpha below 0.
    """
    if alpha < 0:
        raise Refusal(f"alpha is {alpha:g}; give 0 (one group costs least) or more (smaller groups)")
    alive = active.any(0).nonzero()[:, 0].tolist()
    members = [(i,) for i in alive]
    on = active[:, alive].T.float()
    while len(members) > 1:
        pair, gain = best_merge(on, members, alpha)
        if gain <= 0:
            break
        members, on = merged(members, on, pair)
    return Groups(tuple(members), float(costs(on, sizes(members), alpha).sum()))


def sizes(members: list[tuple[int, ...]]) -> Tensor:
    """How many subcomponents each cluster has."""
    return torch.tensor([float(len(m)) for m in members])


def costs(on: Tensor, size: Tensor, alpha: float, groups: int | None = None) -> Tensor:
    """Bits a row of each group."""
    k = torch.tensor(float(groups or len(size) or 1))
    return on.mean(1) * (k.log2() + alpha * size)


def best_merge(on: Tensor, members: list[tuple[int, ...]], alpha: float) -> tuple[tuple[int, int], float]:
    """The pair whose merging saves most, and how many bits; all other groups become easier to tell apart as well."""
    size, share, k = sizes(members), on.mean(1), len(members)
    either = share[:, None] + share[None] - on @ on.T / on.shape[1]
    after = either * (torch.tensor(k - 1.0).log2() + alpha * (size[:, None] + size[None]))
    now, then = costs(on, size, alpha), costs(on, size, alpha, k - 1)
    saved = now.sum() - (then.sum() - then[:, None] - then[None] + after)
    saved.fill_diagonal_(-torch.inf)
    at = int(saved.argmax())
    return (at // k, at % k), float(saved.flatten()[at])


def merged(members: list[tuple[int, ...]], on: Tensor, pair: tuple[int, int]) -> tuple[list[tuple[int, ...]], Tensor]:
    """The clusters with two of them as one, and where each is on."""
    a, b = sorted(pair)
    rest = [i for i in range(len(members)) if i not in (a, b)]
    together = tuple(sorted((*members[a], *members[b])))
    return [*(members[i] for i in rest), together], torch.cat((on[rest], torch.maximum(on[a], on[b])[None]))
