"""Absorption and splitting: components that should stand for a label, and do not where another has taken it over.

Chanin et al. 2024, A is for Absorption (arXiv 2409.14507), for labels of any kind. A label's main components are those
of the sparse probe to which one more adds no more than .03 of F1; more than one is a split. A token of the label is
absorbed where the linear probe finds the label, every main component is silent, and one other component writes at
least .4 of what the probe sees there.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.errors import Refusal
from microtome.evals.firings import Firings
from microtome.evals.interval import f1
from microtome.evals.probing import ranked, sparse_probe
from microtome.evals.truth import Truth

GAIN, MOST = 0.03, 10  # of F1, by which one more component must help; components tried
COSINE, SHARE = 0.025, 0.4  # Section 4: what absorbs points along the probe, and writes this much of what it sees
FOUND = 0.6  # held-out F1 below which a linear probe says too little of its label


def main_components(firings: Firings, truth: Truth) -> list[list[int]]:
    """For each label the first of the ranked components, as many as each help by more than .03 of training F1."""
    truth.refuse_missing("training")
    order = ranked(firings, truth)[:, :MOST].tolist()
    return [grown(firings, truth, label, best) for label, best in enumerate(order)]


def grown(firings: Firings, truth: Truth, label: int, order: list[int]) -> list[int]:
    before = told(firings, truth, label, order[:1])
    for count in range(2, len(order) + 1):
        now = told(firings, truth, label, order[:count])
        if now - before <= GAIN:
            return order[: count - 1]
        before = now
    return order


def told(firings: Firings, truth: Truth, label: int, components: list[int]) -> float:
    """F1 of a sparse probe on the text that it is fitted to."""
    says = sparse_probe(firings, truth, label, components).says(firings.dense(components))[:, 0]
    return float(f1(truth.judged(says, label).sum(0)))


def absorbed(
    firings: Firings,
    truth: Truth,
    label: int,
    main: list[int],
    above: Float[Tensor, "tokens"],
    direction: Float[Tensor, "d"],
) -> Float[Tensor, "documents 2"]:
    """(absorbed tokens, tokens of the label that the linear probe finds), document by document.

    `above` is by how much the probe's logit exceeds its threshold, `direction` its weight, in units of the site that
    the dictionary reads and writes. What the probe sees of a token is its logit beyond that of the mean token. Raises
    Refusal where the dictionary writes elsewhere.
    """
    dictionary = firings.dictionary
    if dictionary.reads != dictionary.writes:
        raise Refusal("absorption is asked of dictionaries that write where they read; this one writes elsewhere")
    right = truth.has[:, label] & (above >= 0)
    silent = (firings.dense(main) == 0).all(1)
    lost = right & silent & (strongest(firings, direction, right & silent) >= SHARE * (above - above.mean()))
    counts = [torch.bincount(truth.document[which], minlength=truth.documents) for which in (lost, right)]
    return torch.stack(counts, 1).double()


def strongest(
    firings: Firings, direction: Float[Tensor, "d"], where: Bool[Tensor, "tokens"]
) -> Float[Tensor, "tokens"]:
    """The most that any one component that points along a direction writes along it, at some tokens; -1 elsewhere."""
    write = firings.dictionary.directions().write[:, 0].detach().float().cpu()
    along = (normalize(write, dim=1) @ normalize(direction, dim=0)) >= COSINE
    rows, components, values = chosen(firings, where)
    kept = along[components]
    written = values[kept].float() * (write @ direction)[components[kept]]
    return torch.full((firings.tokens,), -1.0).scatter_reduce_(0, rows[kept], written, "amax")


def chosen(
    firings: Firings, where: Bool[Tensor, "tokens"]
) -> tuple[Int[Tensor, "some"], Int[Tensor, "some"], Float[Tensor, "some"]]:
    """The entries at some tokens."""
    rows, components, values = firings.entries
    here = where[rows.long()]
    return rows[here].long(), components[here].long(), values[here]
