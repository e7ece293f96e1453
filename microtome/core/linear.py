"""Components that need no fitting: directions, neurons, an unembedding, a singular value basis."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.codes import Codes, DenseCodes
from microtome.core.component import Dictionary, Directions
from microtome.core.site import Site


class Linear(Dictionary):
    """activity = read . x;  what is written = activity * write.  A probe, PCA, a Fourier basis, a steering vector."""

    offset: Tensor

    def __init__(
        self,
        reads: Site,
        writes: Site | None,
        read: Float[Tensor, "components d_in"],
        write: Float[Tensor, "components d_out"] | None = None,
        offset: Float[Tensor, "d_in"] | None = None,
    ):
        """Without `write`, each component writes along what it reads; with `writes` None it writes nothing.

        `offset` is taken from x before reading and, where reading and writing share a site, put back by decoding.
        """
        super().__init__()
        self.reads, self.writes = (reads,), () if writes is None else (writes,)
        self.read = nn.Parameter(read.detach().clone())
        given = read if write is None else write
        self.write = nn.Parameter(given.detach().clone() if self.writes else read.new_zeros(len(read), 0))
        self.register_buffer("offset", read.new_zeros(read.shape[1]) if offset is None else offset)

    def encode(self, x: Float[Tensor, "... d_in"]) -> Codes:
        return DenseCodes((x - self.offset) @ self.read.T)

    def decode(self, codes: Codes) -> Float[Tensor, "... d_out"]:
        written = codes.times(self.write)
        return written + self.offset if self.writes == self.reads else written

    def directions(self) -> Directions:
        return Directions(self.read[:, None], self.write[:, None])


class Neurons(Dictionary):
    """activity = f(W_in x + b_in);  what is written = W_out's column times it.  The basis the network was born with."""

    w_in: Tensor
    b_in: Tensor
    w_out: Tensor
    b_out: Tensor

    def __init__(
        self,
        reads: Site,
        writes: Site,
        w_in: Float[Tensor, "components d_in"],
        b_in: Float[Tensor, "components"],
        w_out: Float[Tensor, "components d_out"],
        b_out: Float[Tensor, "d_out"],
        nonlinearity: Callable[[Tensor], Tensor] = torch.relu,
    ):
        super().__init__()
        self.reads, self.writes, self.nonlinearity = (reads,), (writes,), nonlinearity
        for name, value in {"w_in": w_in, "b_in": b_in, "w_out": w_out, "b_out": b_out}.items():
            self.register_buffer(name, value.detach())

    def encode(self, x: Float[Tensor, "... d_in"]) -> Codes:
        return DenseCodes(self.nonlinearity(x @ self.w_in.T + self.b_in))

    def decode(self, codes: Codes) -> Float[Tensor, "... d_out"]:
        return codes.times(self.w_out) + self.b_out

    def directions(self) -> Directions:
        return Directions(self.w_in[:, None], self.w_out[:, None])


class Coordinates(Dictionary):
    """Each axis of a site as a component: a neuron after its nonlinearity, a channel, one basis direction.

    activity = x_i;  what is written = x_i times row i of `write`, plus a bias.  Without `write`, the axis itself.
    """

    axes: Tensor
    write: Tensor
    bias: Tensor

    def __init__(
        self,
        reads: Site,
        width: int,
        writes: Site | None = None,
        write: Float[Tensor, "width d_out"] | None = None,
        bias: Float[Tensor, "d_out"] | None = None,
    ):
        super().__init__()
        self.reads, self.writes = (reads,), (writes or reads,)
        self.register_buffer("axes", torch.eye(width))
        self.register_buffer("write", torch.eye(width) if write is None else write.detach())
        self.register_buffer("bias", self.write.new_zeros(self.write.shape[1]) if bias is None else bias.detach())

    def encode(self, x: Float[Tensor, "... d"]) -> Codes:
        return DenseCodes(x)

    def decode(self, codes: Codes) -> Float[Tensor, "... d_out"]:
        return codes.times(self.write) + self.bias

    def directions(self) -> Directions:
        return Directions(self.axes[:, None], self.write[:, None])
