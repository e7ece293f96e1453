"""One rank's latents of a dictionary: an ordinary dictionary of fewer, whose activation asks the other ranks."""

import copy

from torch import nn

from microtome.core.errors import Refusal
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.coder import LinearCoder
from microtome.dictionaries.parallel.group import Group
from microtome.dictionaries.parallel.shared_topk import SharedTopK

DIVIDED = ("W_enc", "b_enc", "W_dec", "silent")  # a row for each latent; all else is the same on every rank


def divided(name: str) -> bool:
    """Whether what has this name in a state has a row for each latent. The end of the name says so."""
    return name.replace("/", ".").split(".")[-1] in DIVIDED


def shard_of(coder: LinearCoder, group: Group) -> LinearCoder:
    """This rank's latents: of n over r ranks, rank i has those from i n/r to (i + 1) n/r. The given one stays as it is.

    A dictionary too large to be made whole is made in parts: `SAE(site, d, group.share(width), SharedTopK(k, group),
    generator=...)`, each rank with a seed of its own. Raises Refusal for a width that does not divide over the ranks
    and for activations other than TopK, whose selection is not known among ranks.
    """
    refuse_unknown(coder)
    n = group.share(len(coder))
    here = slice(group.rank * n, (group.rank + 1) * n)
    others: dict[int, object] = {
        id(whole): nn.Parameter(whole.detach()[here].clone(), whole.requires_grad)
        for name, whole in coder.named_parameters()
        if divided(name)
    }
    assert isinstance(coder.activation, TopK)
    others[id(coder.activation)] = SharedTopK(coder.activation.k, group)
    return copy.deepcopy(coder, others)


def refuse_unknown(coder: nn.Module) -> None:
    """Raises Refusal for a dictionary whose latents cannot be divided."""
    if not isinstance(coder, LinearCoder):
        raise Refusal(
            f"a {type(coder).__name__} is not divided among ranks; an SAE, a Transcoder or a Crosscoder can be"
        )
    if not isinstance(coder.activation, TopK):
        raise Refusal(f"{type(coder.activation).__name__} does not select among ranks; use TopK")
