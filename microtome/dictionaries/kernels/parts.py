"""What a sparse training step is made of, and what each way of making it must offer.

    values, indices = encode(x)                      the k largest pre-activations of each row, relu'd
    error, squares, products = compare(x, ...)       x̂ - x, its summed square, and its product with each active row
    update(...)                                      weights moved by Adam, decoder rows back to unit length

No method makes anything of size rows x width, but for the block of pre-activations that selection looks at.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Weights(NamedTuple):
    """The parameters of a dictionary, changed in place. x is centred by the engine before it comes here."""

    W_enc: Float[Tensor, "n d"]
    b_enc: Float[Tensor, "n"]
    W_dec: Float[Tensor, "n d"]


class Active(NamedTuple):
    """The codes of a batch: k entries a row, values >= 0; an entry of value zero is not active."""

    values: Float[Tensor, "rows k"]
    indices: Int[Tensor, "rows k"]


class Compared(NamedTuple):
    """error = sum of values times decoder rows - target; squares = sum error²; products[r, j] = error[r] . W_dec[j]."""

    error: Float[Tensor, "rows d"]
    squares: Float[Tensor, ""]
    products: Float[Tensor, "rows k"]


class Extra(NamedTuple):
    """Gradients of a few latents from elsewhere (AuxK), to be added to those of the entries."""

    which: Int[Tensor, "some"]
    W_enc: Float[Tensor, "some d"]
    b_enc: Float[Tensor, "some"]
    W_dec: Float[Tensor, "some d"]


class Rate(NamedTuple):
    """One step of Adam: its number from 1, and its constants."""

    step: int
    lr: float
    betas: tuple[float, float]
    eps: float


class Kernels(ABC):
    """One way of making the steps, for one dictionary. It owns the moments of Adam for the three weights."""

    def __init__(self, weights: Weights, k: int):
        self.weights, self.k = weights, k
        self.moments = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights._asdict().items()}

    @abstractmethod
    def encode(self, x: Float[Tensor, "rows d"]) -> Active:
        """The k largest of x W_encᵀ + b_enc in each row, exactly (ties aside), then relu."""

    @abstractmethod
    def compare(self, target: Float[Tensor, "rows d"], active: Active) -> Compared:
        """What the active rows of the decoder add up to, against the target."""

    @abstractmethod
    def update(
        self,
        x: Float[Tensor, "rows d"],
        error: Float[Tensor, "rows d"],
        active: Active,
        gradients: Float[Tensor, "rows k"],
        extra: Extra | None,
        rate: Rate,
    ) -> Bool[Tensor, "n"]:
        """Move the weights by one step of Adam, and give decoder rows unit length; says which latents were active.

        With e(r, j) running over the entries: W_dec gets sum value * error[r], W_enc gets sum gradient * x[r], b_enc
        gets sum gradient; `error` comes scaled so that these are the gradients of the loss. Every latent's moments
        decay, also where it had no entry.
        """

    def reload(self) -> None:  # noqa: B027  (most keep no copies)
        """Take notice of weights that were changed from outside (loaded, resampled)."""

    def remembered(self) -> list[int]:
        """What decides later steps beside weights and moments: nothing, but where a search adapts to what it meets."""
        return []

    def remember(self, numbers: list[int]) -> None:  # noqa: B027  (most have nothing to remember)
        """Go on from what was `remembered`, by these kernels or by others."""
