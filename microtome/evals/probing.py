"""Sparse probing: how few components say whether a token has a label, beside all of the activations.

Gurnee et al. 2023 (arXiv 2305.01610). Components are ranked by how far their mean activity differs between tokens with
and without the label, in their own standard deviations; a logistic regression on the first k, fitted on training text
with its threshold at the best training F1, is judged by F1 on held-out documents. The linear probe reads the
activations themselves, so it says what there was to be found.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.trace import Trace
from microtome.evals.firings import Firings
from microtome.evals.identification import refuse_other_text
from microtome.evals.logistic import Logistic, logistic
from microtome.evals.truth import Truth

KS = (1, 2, 5, 20)
NUMBERS = 2**26  # of activations kept for a linear probe: 256 MB


def ranked(firings: Firings, truth: Truth) -> Int[Tensor, "labels components"]:
    """Components by |mean with the label - mean without it| / standard deviation, the largest first."""
    refuse_other_text(firings, truth)
    rows, components, values = firings.entries
    values, n = values.double(), float(firings.tokens)
    total = torch.bincount(components, values, firings.width)
    spread = (torch.bincount(components, values.square(), firings.width) / n - (total / n) ** 2).clamp(min=1e-12).sqrt()
    scores = []
    for label, positive in enumerate(truth.positives.tolist()):
        here = truth.has[rows.long(), label]
        with_it = torch.bincount(components[here], values[here], firings.width)
        difference = with_it / positive - (total - with_it) / (n - positive)
        scores.append(difference.abs() / spread)
    return torch.stack(scores).argsort(1, descending=True)


def sparse_probe(firings: Firings, truth: Truth, label: int, components: Sequence[int]) -> Logistic:
    """A logistic regression of one label on a few components.

    Tokens on which none of them is active are all alike, and are counted instead of looked at.
    """
    x, has = firings.dense(list(components)), truth.has[:, label]
    active = (x != 0).any(1)
    silent = [(~active & has).sum(), (~active & ~has).sum()]
    rows = torch.cat((x[active], torch.zeros(2, x.shape[1])))
    wanted = torch.cat((has[active], torch.tensor([True, False])))
    times = torch.cat((torch.ones(int(active.sum())), torch.stack(silent).float()))
    return logistic(rows, wanted[:, None], times)


def sparse_probing(
    training: tuple[Firings, Truth], held_out: tuple[Firings, Truth], k: int
) -> Float[Tensor, "documents threes"]:
    """(hits, claimed, true) on held-out documents of the probe on k components, label by label.

    Raises Refusal where a label has no example, or k is not between 1 and the number of components.
    """
    firings, truth = training
    truth.refuse_missing("training")
    refuse_other_text(*held_out)
    if not 1 <= k <= firings.width:
        raise Refusal(f"k is {k}; a sparse probe reads 1 to {firings.width} of these components")
    order = ranked(firings, truth)[:, :k].tolist()
    found = []
    for label, chosen in enumerate(order):
        probe = sparse_probe(firings, truth, label, chosen)
        claimed = probe.says(held_out[0].dense(chosen))[:, 0]
        found.append(held_out[1].judged(claimed, label))
    return torch.stack(found, 1).flatten(1)


class Kept:
    """What a dictionary reads at counted tokens, every so many of them, as a witness of a survey."""

    def __init__(self, dictionary: Dictionary, tokens: int, width: int):
        """At most 2^26 numbers are kept, evenly out of `tokens` rows of this width."""
        self.dictionary, self.sites = dictionary, dictionary.reads
        self.every = -(-tokens * width // NUMBERS)
        self.seen = 0
        self._rows: list[Tensor] = []

    def see(self, trace: Trace, first_window: int) -> None:
        """Keep every so many of these rows, position 0 left out."""
        x = self.dictionary.gather(trace)[:, 1:].flatten(0, 1)
        self._rows.append(x[-self.seen % self.every :: self.every].float().cpu())
        self.seen += len(x)

    @property
    def rows(self) -> Float[Tensor, "kept d"]:
        """All that was kept."""
        return torch.cat(self._rows)

    @property
    def tokens(self) -> Int[Tensor, "kept"]:
        """Which tokens they are."""
        return torch.arange(0, self.seen, self.every)


class Says:
    """What a probe says of every counted token, and how far from its threshold, as a witness of a survey."""

    def __init__(self, dictionary: Dictionary, probe: Logistic):
        self.dictionary, self.sites, self.probe = dictionary, dictionary.reads, probe
        self._logits: list[Tensor] = []

    def see(self, trace: Trace, first_window: int) -> None:
        """Ask the probe about these rows, position 0 left out."""
        x = self.dictionary.gather(trace)[:, 1:].flatten(0, 1).float().cpu()
        self._logits.append(self.probe.logits(x) - self.probe.threshold)

    @property
    def above(self) -> Float[Tensor, "tokens labels"]:
        """How far above its threshold each label's logit is."""
        return torch.cat(self._logits)

    def judged(self, truth: Truth) -> Float[Tensor, "documents threes"]:
        """(hits, claimed, true) of the probe, label by label and document by document."""
        says = self.above >= 0
        return torch.stack([truth.judged(says[:, i], i) for i in range(len(truth.names))], 1).flatten(1)


def linear_probe(kept: Kept, truth: Truth) -> Logistic:
    """A logistic regression of every label on activations of training text."""
    truth.refuse_missing("training")
    return logistic(kept.rows, truth.has[kept.tokens], steps=100)
