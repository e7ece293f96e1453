"""Compressed computation: x + relu(x) of more features than neurons, through a residual stream.

Braun et al. 2025, Interpretability in Parameter Space (arXiv 2501.14926), and Bushnaq et al. 2025 (arXiv 2506.20790).
It is no computation in superposition: the network beats one feature a neuron only because the fixed random embedding's
directions overlap, which mixes features into one another's labels (arXiv 2606.14673). `mixing=False` takes that away.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import normalize

from microtome.core.errors import Refusal
from microtome.core.linear import Neurons
from microtome.core.site import Site
from microtome.toys.toy import Toy, plus

X, Y = Site("x", "batch d"), Site("y", "batch d")


class MLP(nn.Module):
    """w_out relu(w_in x + b_in) + b_out"""

    b_in: nn.Parameter | None
    b_out: nn.Parameter | None

    def __init__(self, lead: tuple[int, ...], d: int, neurons: int, biased: bool, generator: torch.Generator) -> None:
        super().__init__()
        device = generator.device
        drawn = (torch.randn(*lead, n, m, generator=generator, device=device) for n, m in ((neurons, d), (d, neurons)))
        self.w_in, self.w_out = (nn.Parameter(w / w.shape[-1] ** 0.5) for w in drawn)
        for name, width in (("b_in", neurons), ("b_out", d)):
            self.register_parameter(name, nn.Parameter(torch.zeros(*lead, width, device=device)) if biased else None)
        self.pre, self.act = nn.Identity(), nn.Identity()

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        pre = self.pre(plus(x @ self.w_in.mT, self.b_in))
        return plus(self.act(F.relu(pre)) @ self.w_out.mT, self.b_out)


class ResidualMLP(Toy):
    """y = embed^T (r + sum of what the MLPs add), r = embed x; embed is fixed, its columns random directions.

    Without `mixing` they are orthogonal, so that the embedding itself gives each feature back unmixed. The MLPs stand
    one after another and share the neurons: `neurons` is how many there are in all.
    """

    def __init__(
        self,
        features: int = 100,
        d: int = 1000,
        neurons: int = 50,
        layers: int = 1,
        *,
        generator: torch.Generator,
        seeds: int | None = None,
        biased: bool = False,
        mixing: bool = True,
    ) -> None:
        super().__init__()
        if neurons % layers:
            raise Refusal(f"{neurons} neurons cannot be shared by {layers} layers; give a multiple")
        if not mixing and d < features:
            raise Refusal(f"{features} directions in {d} dimensions cannot be orthogonal; give d of {features} or more")
        self.seeds = seeds
        lead = () if seeds is None else (seeds,)
        drawn = torch.randn(*lead, d, features, generator=generator, device=generator.device)
        columns = normalize(drawn, dim=-2) if mixing else torch.linalg.qr(drawn).Q
        self.embed = nn.Parameter(columns, requires_grad=False)
        each = neurons // layers
        self.layers = nn.ModuleList([MLP(lead, d, each, biased, generator) for _ in range(layers)])
        self.stream = nn.ModuleList([nn.Identity() for _ in range(layers + 1)])
        self.sites = {"x": ("", "in", "batch d"), "y": ("", "out", "batch d")}
        for i in range(layers):
            self.sites |= {
                f"resid_pre.{i}": (f"stream.{i}", "out", "batch d"), f"mlp_in.{i}": (f"layers.{i}", "in", "batch d"),
                f"mlp_act.{i}": (f"layers.{i}.act", "out", "batch neuron"),
                f"mlp_out.{i}": (f"layers.{i}", "out", "batch d"),
                f"resid_post.{i}": (f"stream.{i + 1}", "in", "batch d"),
            }  # fmt: skip

    def forward(self, x: Float[Tensor, "... features"]) -> Float[Tensor, "... features"]:
        r = self.stream[0](x @ self.embed.mT)
        for layer, after in zip(self.layers, list(self.stream)[1:], strict=True):
            r = after(r + layer(r))
        return r @ self.embed

    def target(self, x: Float[Tensor, "... features"]) -> Float[Tensor, "... features"]:
        return x + x.relu()

    def narrowed(self) -> "ResidualMLP":
        """Itself in as many dimensions as it has features: those in which they are embedded, and nothing else.

        With one layer it is the same function. With more, no later layer reads any more what one writes elsewhere, as
        drawn weights do at first. Training never leaves these dimensions.
        """
        copy, used = self.some(lambda weight: weight, self.seeds), torch.linalg.qr(self.embed.detach()).Q
        copy.embed = nn.Parameter(used.mT @ self.embed, requires_grad=False)
        for block in (cast(MLP, layer) for layer in copy.layers):
            block.w_in, block.w_out = (nn.Parameter(w.detach()) for w in (block.w_in @ used, used.mT @ block.w_out))
            if block.b_out is not None:
                block.b_out = nn.Parameter((used.mT @ block.b_out.detach()[..., None])[..., 0])
        return copy

    def truth(self) -> Neurons:
        """What the MLPs should add: one neuron for each feature, that reads it from x and writes it to y."""
        self.alone()
        axes = torch.eye(self.embed.shape[-1], device=self.embed.device)
        nothing = axes.new_zeros(len(axes))
        return Neurons(X, Y, axes, nothing, axes, nothing)
