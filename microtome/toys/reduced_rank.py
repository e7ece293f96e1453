"""Reduced-rank regression: two linear maps one after another, learned from a teacher of known rank.

Aoyagi and Watanabe 2005, Stochastic Complexities of Reduced Rank Regression in Bayesian Estimation: its learning
coefficient is known exactly, which no network with a nonlinearity and more than a few weights can say.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.toys.toy import Toy, plus

X, Y = Site("x", "batch d"), Site("y", "batch d")


class ReducedRank(Toy):
    """y = w_out w_in x (+ bias), meant to be teacher x.

    Built at the truth: the weights hold the teacher exactly, its singular values halved between both maps. The learning
    coefficient there, for noise of any variance and inputs of full rank, is `learning_coefficient(...)`.
    """

    teacher: Tensor
    bias: nn.Parameter | None
    sites = {"x": ("", "in", "batch d"), "hidden": ("hidden", "out", "batch d"), "y": ("", "out", "batch d")}

    def __init__(
        self,
        inputs: int = 5,
        hidden: int = 4,
        outputs: int = 5,
        rank: int = 2,
        *,
        generator: torch.Generator,
        seeds: int | None = None,
        biased: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= rank <= min(inputs, hidden, outputs):
            raise Refusal(
                f"a teacher of rank {rank} does not fit {inputs} inputs, {hidden} hidden, {outputs} outputs; "
                f"give 0 to {min(inputs, hidden, outputs)}"
            )
        self.seeds, self.rank = seeds, rank
        lead, device = () if seeds is None else (seeds,), generator.device
        left, right = (
            torch.linalg.qr(torch.randn(*lead, n, n, generator=generator, device=device)).Q[..., :rank]
            for n in (outputs, inputs)
        )
        self.register_buffer("teacher", left @ right.mT)
        w_in, w_out = left.new_zeros(*lead, hidden, inputs), left.new_zeros(*lead, outputs, hidden)
        w_in[..., :rank, :], w_out[..., :rank] = right.mT, left
        self.w_in, self.w_out, self.hidden = nn.Parameter(w_in), nn.Parameter(w_out), nn.Identity()
        self.register_parameter("bias", nn.Parameter(w_in.new_zeros(*lead, outputs)) if biased else None)

    def forward(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        return plus(self.hidden(x @ self.w_in.mT) @ self.w_out.mT, self.bias)

    def target(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        return x @ self.teacher.mT

    def truth(self) -> Linear:
        """The teacher's singular directions: each reads x along one and writes y along the other."""
        self.alone()
        left, values, right = torch.linalg.svd(self.teacher)
        return Linear(X, Y, right[: self.rank], (left[:, : self.rank] * values[: self.rank]).T)


def learning_coefficient(inputs: int, hidden: int, outputs: int, rank: int) -> float:
    """The real log canonical threshold of reduced-rank regression without a bias, at a teacher of this rank.

    With M inputs, H hidden, N outputs and rank r: where none of M + H < N + r, N + H < M + r, M + N < H + r holds,
    (2 (H + r)(M + N) - (M - N)² - (H + r)²) / 8, and one eighth more where M + H + N + r is odd; in these three cases
    (H M - H r + N r) / 2, (H N - H r + M r) / 2 and M N / 2. Aoyagi and Watanabe 2005, main theorem.
    """
    m, h, n, r = inputs, hidden, outputs, rank
    if m + h < n + r:
        return (h * m - h * r + n * r) / 2
    if n + h < m + r:
        return (h * n - h * r + m * r) / 2
    if m + n < h + r:
        return m * n / 2
    return (2 * (h + r) * (m + n) - (m - n) ** 2 - (h + r) ** 2 + (m + h + n + r) % 2) / 8
