"""How well a dictionary stands in for the activations it reads, and for what the network does with them.

Position 0 of every window is left out throughout: its activations are of another size and the same in every text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.edit import Edit, fill, splice, written_site
from microtome.core.inputs import Tokens
from microtome.core.measure import LOGITS, token_losses
from microtome.core.model import Model
from microtome.core.trace import Trace
from microtome.store.survey import surveying


class Variance:
    """Explained variance of a dictionary, as a witness of a survey: sums in double precision over all rows seen.

    explained = 1 - sum |x - x̂|² / sum |x - mean|², where x stands at the written site and the mean is over all rows.
    """

    def __init__(self, dictionary: Dictionary):
        self.dictionary, self.site = dictionary, written_site(dictionary)
        self.sites = (*dictionary.reads, self.site)
        self.rows = self.active = 0
        self.missed = self.squares = 0.0
        self.sums = torch.zeros((), dtype=torch.float64)
        self.fired = torch.zeros(len(dictionary), dtype=torch.long)

    def see(self, trace: Trace, first_window: int) -> None:
        """Count a batch of windows, position 0 left out."""
        codes, target = trace.codes(self.dictionary), trace[self.site]
        entries = codes.entries()
        counted = entries.components[entries.rows % target.shape[1] != 0]
        self.fired += torch.bincount(counted, minlength=codes.width).cpu()
        self.active += len(counted)
        made = self.dictionary.rebuild(codes, trace)
        self.add(target[:, 1:].flatten(0, 1), made[:, 1:].flatten(0, 1))

    def add(self, target: Float[Tensor, "rows d"], reconstructed: Float[Tensor, "rows d"]) -> None:
        """Count rows against what the dictionary makes of them."""
        self.rows += len(target)
        self.missed += (target - reconstructed).double().pow(2).sum().item()
        self.sums = self.sums + target.double().sum(0).cpu()
        self.squares += target.double().pow(2).sum().item()

    @property
    def explained(self) -> float:
        """1 - sum |x - x̂|² / sum |x - mean|²."""
        spread = self.squares - (self.sums.pow(2).sum() / self.rows).item()
        return 1.0 - self.missed / spread

    @property
    def l0(self) -> float:
        """The mean number of active components a row."""
        return self.active / self.rows

    @property
    def never_fired(self) -> float:
        """The share of components that fired on no row."""
        return (self.fired == 0).float().mean().item()

    @property
    def mean(self) -> Float[Tensor, "d"]:
        """The mean of the rows."""
        return (self.sums / self.rows).float()


def variance(model: Model, dictionary: Dictionary, tokens: Tensor, *, batch: int = 32) -> Variance:
    """Explained variance, L0 and which components fired, over windows of tokens."""
    found = Variance(dictionary)
    for _ in surveying(model, [found], tokens, batch=batch):
        pass
    return found


@dataclass(frozen=True)
class Recovered:
    """Cross-entropy in nats per token: untouched, with the site's mean in its place, each dictionary spliced in."""

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
    """How much of the cross-entropy survives when each dictionary stands in for its site; all write at one site."""
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
    """The cross-entropy of each next token, in nats, under edits."""
    return token_losses(model.run(Tokens.of(ids), read=[LOGITS], edit=edit))[0]
