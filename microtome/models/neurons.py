"""The neurons of an MLP as a dictionary: the basis the network was born with."""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from microtome.core.linear import Coordinates
from microtome.models.adapter import Into
from microtome.models.hooked import HookedModel


def neurons(model: HookedModel, layer: int) -> Coordinates:
    """The neurons of one layer, read after their nonlinearity (`mlp_act`), each writing its column of W_out.

    They write what the MLP returns: `mlp_out_raw` where the family norms that before adding it, else `mlp_out`. Raises
    NoSuchSite where the layer has no such MLP.
    """
    reads = model.site(f"mlp_act.{layer}")
    raw = f"mlp_out_raw.{layer}"
    writes = model.site(raw if raw in model.family.sited else f"mlp_out.{layer}")
    place = cast(Into, model.locate(reads.name).place)
    down = cast(nn.Linear | Conv1D, model.module.get_submodule(place.path))
    write = columns(down)
    return Coordinates(reads, len(write), writes, write, down.bias)


def columns(down: nn.Linear | Conv1D) -> Float[Tensor, "inputs outputs"]:
    """What each input of a projection writes: (inputs, outputs). GPT-2's Conv1D stores it so, a Linear transposed."""
    return down.weight if isinstance(down, Conv1D) else down.weight.T
