"""What a direction in the residual stream says about the next token, read off the unembedding.

nostalgebraist 2020, "Interpreting GPT: the logit lens". No weight is changed: the final norm's gain is folded in
on the fly.
"""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.models.adapter import OutOf
from microtome.models.hooked import HookedModel


@torch.no_grad()
def direct_logits(model: HookedModel, directions: Float[Tensor, "some d"]) -> Float[Tensor, "some vocab"]:
    """Each direction's direct effect on the logits per unit of final-norm scale, its mean over the vocabulary removed.

    The norm's own scale differs from token to token, so only the sizes relative to one another mean something. Raises
    Refusal where the model has no unembedding, or the directions are not of the residual stream's width.
    """
    module: Any = model.module
    unembedding = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    if unembedding is None:
        raise Refusal(f"{model.name} has no unembedding, so directions have no direct effect on logits")
    weight = unembedding.weight
    if directions.shape[1] != weight.shape[1]:
        raise Refusal(f"directions are {directions.shape[1]} wide and the residual stream {weight.shape[1]}")
    effect = (directions * final_gain(model, weight.shape[1])) @ weight.T
    return effect - effect.mean(1, keepdim=True)


def final_gain(model: HookedModel, width: int) -> Float[Tensor, "d"]:
    """The final norm's gain, found by what it does: it turns a large vector of signs into the gain times the signs."""
    norm = cast(OutOf, model.locate("final_norm").place)
    module = model.module.get_submodule(norm.path)
    signs = torch.ones(2, width)
    signs[:, ::2] = -1
    signs[1] *= -1
    up, down = module(signs * 1e3)
    return (up - down) / 2 * signs[0]
