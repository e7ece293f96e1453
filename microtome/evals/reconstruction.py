"""How well a dictionary stands in for the activations it reads, and for what the network does with them.

Position 0 of every window is left out throughout: its activations are of another size and the same in every text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.edit import Edit, fill, splice, written_site
from microtome.core.inputs import Tokens
from microtome.core.measure import token_losses
from microtome.core.model import Model
from microtome.core.site import Site


@dataclass
class Variance:
    """Explained variance as sums in double precision: 1 - sum |x - x̂|² / sum |x - mean|², the mean over all rows.

    Rows are added in batches of any size, and their sizes do not matter beyond rounding.
    """

    rows: int = 0
    missed: float = 0.0
    active: int = 0
    sums: Tensor | float = 0.0
    squares: float = 0.0
    fired: Tensor | None = field(default=None, repr=False)

    def add(self, x: Float[Tensor, "rows d"], dictionary: Dictionary, target: Float[Tensor, "rows d"]) -> None:
        """Count rows of the read site `x` against the same rows of the written site, `target`."""
        codes = dictionary.encode(x)
        entries = codes.entries()
        fired = torch.bincount(entries.components, minlength=codes.width)
        self.fired = fired if self.fired is None else self.fired + fired
        self.rows, self.active = self.rows + len(x), self.active + len(entries.values)
        self.missed += (target - dictionary.decode(codes)).double().pow(2).sum().item()
        self.sums = self.sums + target.double().sum(0)
        self.squares += target.double().pow(2).sum().item()

    @property
    def explained(self) -> float:
        spread = self.squares - (self.sums.pow(2).sum() / self.rows).item()
        return 1.0 - self.missed / spread

    @property
    def l0(self) -> float:
        return self.active / self.rows

    @property
    def never_fired(self) -> float:
        return (self.fired == 0).float().mean().item()

    @property
    def mean(self) -> Float[Tensor, "d"]:
        return (self.sums / self.rows).float()


@torch.no_grad()
def variance(model: Model, dictionary: Dictionary, tokens: Tensor, *, batch: int = 32) -> Variance:
    """Explained variance, L0 and which components fired, over windows of tokens."""
    found, site = Variance(), written_site(dictionary)
    for ids in tokens.split(batch):
        trace = model.run(Tokens.of(ids), read=[*dictionary.reads, site])
        x, target = dictionary.gather(trace), trace[site]
        found.add(x[:, 1:].flatten(0, 1), dictionary, target[:, 1:].flatten(0, 1))
    return found


@dataclass(frozen=True)
class Recovered:
    """Cross-entropy in nats per token: untouched, with the site's mean in its place, and with each dictionary spliced in."""

    clean: float
    ablated: float
    spliced: list[float]

    @property
    def shares(self) -> list[float]:
        """(ablated - spliced) / (ablated - clean), for each dictionary: 1 is as good as the network, 0 as its mean."""
        return [(self.ablated - s) / (self.ablated - self.clean) for s in self.spliced]


@torch.no_grad()
def recovered(
    model: Model, dictionaries: Sequence[Dictionary], mean: Float[Tensor, "d"], tokens: Tensor, *, batch: int = 16
) -> Recovered:
    """How much of the cross-entropy survives when each dictionary stands in for its site; all write at the same site."""
    site = written_site(dictionaries[0])
    after = {"pos": slice(1, None)}
    edits = [[], [fill(site, mean).at(**after)], *([splice(d).at(**after)] for d in dictionaries)]
    totals, counted = torch.zeros(len(edits), dtype=torch.float64), 0
    for ids in tokens.split(batch):
        losses = [loss_of(model, ids, edit) for edit in edits]
        totals += torch.tensor([loss.sum().item() for loss in losses], dtype=torch.float64)
        counted += losses[0].numel()
    clean, ablated, *spliced = (totals / counted).tolist()
    return Recovered(clean, ablated, spliced)


def loss_of(model: Model, ids: Tensor, edit: Sequence[Edit]) -> Float[Tensor, "batch next"]:
    logits = Site("logits", "batch pos vocab")
    return token_losses(model.run(Tokens.of(ids), read=[logits], edit=edit), logits)[0]


