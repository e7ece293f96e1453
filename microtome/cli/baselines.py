"""What stands beside a dictionary in a table: chance, a frozen encoder, principal components, the own basis."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.linear import Coordinates
from microtome.core.site import Site
from microtome.dictionaries.baselines import Strongest, frozen_encoder, principal_components, random_dictionary
from microtome.models.hooked import HookedModel
from microtome.models.neurons import neurons

ABOUT = {
    "random": "random directions read and written, as wide and as sparse, one gain for all",
    "frozen": "a random encoder that is never learned, under its best decoder",
    "pca": "as many principal components as are active on a token, always active",
    "neurons": "the neurons of the layer (or the axes of the site), as many of the strongest as are active on a token",
}
FEW = 20_000  # rows that the decoder of a frozen encoder is fitted to


def baselines(
    model: HookedModel,
    site: Site,
    sample: Float[Tensor, "rows d"],
    width: int,
    k: int,
    seed: int,
    names: Iterable[str] = tuple(ABOUT),
) -> dict[str, Dictionary]:
    """By name, in the order given: all of the same sparsity, for a dictionary that reads at this site."""
    sample, generators = sample.cpu(), [torch.Generator().manual_seed(seed + i) for i in (1, 2)]
    makers: dict[str, Callable[[], Dictionary]] = {
        "random": lambda: random_dictionary(site, sample, width, k, generators[0]),
        "frozen": lambda: frozen_encoder(site, sample[:: -(-len(sample) // FEW)], width, k, generators[1]),
        "pca": lambda: principal_components(site, sample, min(k, sample.shape[1])),
        "neurons": lambda: Strongest(own_basis(model, site, sample.shape[1]), k),
    }
    return {name: makers[name]().to(model.device) for name in names}


def own_basis(model: HookedModel, site: Site, width: int) -> Dictionary:
    """The neurons of the site's layer, or the axes of the site where it has none."""
    if site.layer is not None and f"mlp_act.{site.layer}" in model.family.sited:
        return neurons(model, site.layer)
    return Coordinates(site, width)
