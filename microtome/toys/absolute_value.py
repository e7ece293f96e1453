"""Computation in superposition: the absolute value of more features than there are neurons.

Elhage et al. 2022, Toy Models of Superposition: 100 features in [-1, 1], mostly zero, and 40 neurons that have to make
|x| of them. A neuron can make one half-wave of a feature, so with 2 neurons a feature nothing would be shared.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from microtome.core.errors import Refusal
from microtome.core.linear import Neurons
from microtome.core.site import Site
from microtome.toys.toy import Toy, plus

X, Y = Site("x", "batch d"), Site("y", "batch d")


class AbsoluteValue(Toy):
    """y = relu(w_out relu(w_in x) + bias), meant to be |x|."""

    bias: nn.Parameter | None
    sites = {
        "x": ("", "in", "batch d"), "mlp_pre": ("pre", "out", "batch neuron"),
        "mlp_act": ("act", "out", "batch neuron"), "y": ("", "out", "batch d"),
    }  # fmt: skip

    def __init__(
        self,
        features: int = 100,
        neurons: int = 40,
        *,
        generator: torch.Generator,
        seeds: int | None = None,
        biased: bool = True,
    ) -> None:
        super().__init__()
        if min(features, neurons, seeds or 1) < 1:
            raise Refusal(f"{features} features, {neurons} neurons, {seeds} seeds: give at least one of each")
        self.seeds = seeds
        lead, scale = () if seeds is None else (seeds,), (2 / (features + neurons)) ** 0.5
        shapes = (neurons, features), (features, neurons)
        drawn = (torch.randn(*lead, *shape, generator=generator, device=generator.device) for shape in shapes)
        self.w_in, self.w_out = (nn.Parameter(weight * scale) for weight in drawn)
        bias = nn.Parameter(self.w_in.new_zeros(*lead, features)) if biased else None
        self.register_parameter("bias", bias)
        self.pre, self.act = nn.Identity(), nn.Identity()

    def forward(self, x: Float[Tensor, "... features"]) -> Float[Tensor, "... features"]:
        act = self.act(F.relu(self.pre(x @ self.w_in.mT)))
        return F.relu(plus(act @ self.w_out.mT, self.bias))

    def target(self, x: Float[Tensor, "... features"]) -> Float[Tensor, "... features"]:
        return x.abs()

    def truth(self) -> Neurons:
        """Two half-waves a feature: relu(x_i), then for all features relu(-x_i), each written to entry i of y."""
        self.alone()
        axes = torch.eye(self.w_in.shape[-1], device=self.w_in.device)
        nothing = axes.new_zeros(len(axes))
        return Neurons(X, Y, torch.cat([axes, -axes]), torch.cat([nothing, nothing]), torch.cat([axes, axes]), nothing)
