"""Toy models of superposition: more features than dimensions, kept apart by being rarely on together.

Elhage et al. 2022, Toy Models of Superposition. With a map between, as in the toys that parameter decomposition was
tried on (Bushnaq et al. 2025, arXiv 2506.20790): there the identity, which no feature owns.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from microtome.core.errors import Refusal
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.toys.sparse import Sparse
from microtome.toys.toy import Toy, learn

X, HIDDEN = Site("x", "batch d"), Site("hidden", "batch d")


class Superposition(Toy):
    """y = relu(decoder between encoder x + bias), where decoder is the encoder transposed and `between` the identity.

    `untied()` gives the decoder a weight of its own, `with_between(map)` puts a map in the middle; the first changes
    nothing of what the network computes, nor does the second where the map is the identity.
    """

    decoder: nn.Parameter | None
    between: nn.Parameter | None
    bias: nn.Parameter | None
    sites = {
        "x": ("", "in", "batch d"), "hidden": ("hidden", "out", "batch d"), "mapped": ("mapped", "out", "batch d"),
        "y": ("", "out", "batch d"),
    }  # fmt: skip

    def __init__(
        self,
        features: int,
        hidden: int,
        *,
        generator: torch.Generator,
        seeds: int | None = None,
        biased: bool = True,
    ) -> None:
        """Weights as Glorot and Bengio draw them, zero bias."""
        super().__init__()
        if min(features, hidden, seeds or 1) < 1:
            raise Refusal(f"{features} features in {hidden} dimensions, {seeds} seeds: give at least one of each")
        self.seeds = seeds
        lead = () if seeds is None else (seeds,)
        drawn = torch.randn(*lead, hidden, features, generator=generator, device=generator.device)
        self.encoder = nn.Parameter(drawn * (2 / (features + hidden)) ** 0.5)
        self.register_parameter("between", None)
        self.register_parameter("decoder", None)
        self.register_parameter("bias", nn.Parameter(drawn.new_zeros(*lead, features)) if biased else None)
        self.hidden, self.mapped = nn.Identity(), nn.Identity()

    def forward(self, x: Float[Tensor, "... features"]) -> Float[Tensor, "... features"]:
        hidden = self.hidden(x @ self.encoder.mT)
        mapped = self.mapped(hidden if self.between is None else hidden @ self.between.mT)
        pre = mapped @ (self.encoder if self.decoder is None else self.decoder.mT)
        return F.relu(pre if self.bias is None else pre + self.bias[..., None, :])

    def target(self, x: Float[Tensor, "... features"]) -> Float[Tensor, "... features"]:
        return x

    def truth(self) -> Linear:
        """Feature i is read from entry i of x and written along column i of the encoder."""
        self.alone()
        return Linear(X, HIDDEN, torch.eye(self.encoder.shape[-1], device=self.encoder.device), self.encoder.detach().T)

    def parts(self) -> dict[str, Float[Tensor, "features out in"]]:
        """The encoder and the decoder as sums of one matrix for each feature."""
        features = torch.eye(self.encoder.shape[-1], device=self.encoder.device)
        encoder = self.encoder.detach()
        decoder = encoder.mT if self.decoder is None else self.decoder.detach()
        return {
            "encoder": encoder.mT[..., :, :, None] * features[:, None, :],
            "decoder": features[:, :, None] * decoder[..., :, None, :],
        }

    def untied(self) -> "Superposition":
        """The same network with a decoder of its own."""
        copy = self.some(lambda weight: weight, self.seeds)
        if copy.decoder is None:
            copy.decoder = nn.Parameter(self.encoder.detach().mT.contiguous().clone())
        return copy

    def with_between(self, weight: Float[Tensor, "*seeds hidden hidden"]) -> "Superposition":
        """The same network with this map between encoder and decoder; it is not learned."""
        copy = self.some(lambda weight: weight, self.seeds)
        shape = (*self.encoder.shape[:-1], self.encoder.shape[-2])
        copy.between = nn.Parameter(weight.expand(shape).clone(), requires_grad=False)
        return copy


def superposition(
    features: int = 5,
    hidden: int = 2,
    *,
    probability: float = 0.05,
    seeds: int | None = None,
    biased: bool = True,
    steps: int = 5000,
    rows: int = 1024,
    seed: int = 0,
) -> tuple[Superposition, Linear]:
    """A trained toy and its truth; with `seeds`, several toys and the truth of the first.

    Inputs are uniform in [0, 1] and on with this probability. As in Bushnaq et al. 2025: 5 features in 2 dimensions or
    40 in 10, learning rate .005. 5 in 2 takes some 6 seconds a seed, or for ten together.
    """
    generator = torch.Generator().manual_seed(seed)
    toy = Superposition(features, hidden, generator=generator, seeds=seeds, biased=biased)
    learn(toy, Sparse(features, probability, seeds=seeds).batches(rows, steps, generator))
    return toy, (toy if seeds is None else toy.one(0)).truth()
