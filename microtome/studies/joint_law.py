"""Loss as a law of the number of latents n and the number active k, fitted to measured points.

L(n, k) = exp(a + b_k log k + b_n log n + g log k log n) + exp(z + e log k)

Gao et al. 2024 (arXiv 2406.04093). The second part is what no number of latents removes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import Refusal

Number = int | float
PARAMETERS = 6
HUBER = 0.01  # log-loss beyond which a residual counts by its size and not its square: about one per cent
SHARES = (0.05, 0.3, 0.6, 0.85, 0.97)  # of the lowest loss at each k that is irreducible: where fits begin
STEPS, SETTLED = 300, 1e-10  # at most; a step that gains less than this share of the cost counts as none


class Points(NamedTuple):
    """Measured losses, one at each (n, k); the same place may stand there several times."""

    n: Float[Tensor, "points"]
    k: Float[Tensor, "points"]
    loss: Float[Tensor, "points"]

    @classmethod
    def of(cls, rows: Sequence[tuple[Number, Number, Number]]) -> "Points":
        """From (n, k, loss) triples."""
        return cls(*torch.tensor(rows, dtype=torch.float64).view(-1, 3).unbind(1))


class JointLaw(NamedTuple):
    """The constants of the law, as in the equation above."""

    a: float
    b_k: float
    b_n: float
    g: float
    z: float
    e: float

    def reducible(self, n: Float[Tensor, "points"], k: Float[Tensor, "points"]) -> Float[Tensor, "points"]:
        """The part that falls with n."""
        return (self.a + self.b_k * k.log() + self.b_n * n.log() + self.g * k.log() * n.log()).exp()

    def irreducible(self, k: Float[Tensor, "points"]) -> Float[Tensor, "points"]:
        return (self.z + self.e * k.log()).exp()

    def loss(self, n: Float[Tensor, "points"], k: Float[Tensor, "points"]) -> Float[Tensor, "points"]:
        return self.reducible(n, k) + self.irreducible(k)

    def slope_n(self, k: Number) -> float:
        """d log(reducible part) / d log n at this k."""
        return self.b_n + self.g * math.log(k)

    def slope_k(self, n: Number) -> float:
        """d log(reducible part) / d log k at this n."""
        return self.b_k + self.g * math.log(n)

    def errors(self, points: Points) -> Float[Tensor, "points"]:
        """log of predicted over measured loss: 0.01 is one per cent too high."""
        return (self.loss(points.n, points.k) / points.loss).log()


def fit_law(points: Points) -> JointLaw:
    """The law of least Huber loss on log-losses, from several starts. Raises Refusal where it is not determined."""
    refuse_undetermined(points)
    frame = Frame(points)
    starts = torch.stack([frame.start(share) for share in SHARES])
    fitted = descend(frame, starts, points.loss.log().expand(len(starts), -1))
    best = frame.cost(fitted, points.loss.log()).argmin()
    return frame.law(fitted[best])


def refit(points: Points, law: JointLaw, generator: torch.Generator, resamples: int = 200) -> list[JointLaw]:
    """Laws fitted to what might have been measured: predictions of `law` times residuals drawn with replacement.

    Their spread is that of the constants, as far as the law is true: it holds the noise of training, not a wrong form.
    """
    frame = Frame(points)
    residuals = -law.errors(points)
    residuals = (residuals - residuals.mean()) * (len(residuals) / (len(residuals) - PARAMETERS)) ** 0.5
    picked = torch.randint(len(residuals), (resamples, len(residuals)), generator=generator)
    wanted = law.loss(points.n, points.k).log() + residuals[picked]
    begun = frame.theta(law).expand(resamples, -1)
    return [frame.law(theta) for theta in descend(frame, begun, wanted)]


def refuse_undetermined(points: Points) -> None:
    widths, actives = len(points.n.unique()), len(points.k.unique())
    if widths < 3 or actives < 2 or len(points.loss) <= PARAMETERS:
        raise Refusal(
            f"{len(points.loss)} points at {widths} widths and {actives} values of k do not determine the law's six "
            "constants; give at least 7 at three widths and two values of k"
        )
    if not (points.loss > 0).all() or not points.loss.isfinite().all():
        raise Refusal("a loss is not a finite number above zero, so it has no logarithm; leave that point out")


class Parts(NamedTuple):
    """What falls with n, and what does not."""

    growing: Float[Tensor, "fits points"]
    staying: Float[Tensor, "fits points"]


class Frame:
    """The law about the centre of its points, where its constants hardly depend on one another."""

    def __init__(self, points: Points):
        self.points = points
        self.log_k, self.log_n = points.k.log().mean().item(), points.n.log().mean().item()
        u, v = points.k.log() - self.log_k, points.n.log() - self.log_n
        self.growing = torch.stack([torch.ones_like(u), u, v, u * v], 1)  # a, b_k, b_n, g
        self.staying = self.growing[:, :2]  # z, e

    def start(self, share: float) -> Float[Tensor, "6"]:
        """Least squares of both parts, were this share of the lowest loss at each k irreducible."""
        loss, k = self.points.loss, self.points.k
        floor = share * torch.stack([loss[k == one].min() for one in k])
        return torch.cat([solved(self.growing, (loss - floor).log()), solved(self.staying, floor.log())])

    def parts(
        self, theta: Float[Tensor, "fits 6"]
    ) -> tuple[Float[Tensor, "fits points"], Float[Tensor, "fits points"]]:
        """The reducible and the irreducible part at every point."""
        growing, staying = theta[:, :4] @ self.growing.T, theta[:, 4:] @ self.staying.T
        return growing.clamp(-60, 30).exp(), staying.clamp(-60, 30).exp()

    def cost(self, theta: Float[Tensor, "fits 6"], wanted: Float[Tensor, "*fits points"]) -> Float[Tensor, "fits"]:
        """Huber's loss of the log-residuals."""
        growing, staying = self.parts(theta)
        residuals = (growing + staying).log() - wanted
        return torch.nn.functional.huber_loss(residuals, torch.zeros_like(residuals), "none", HUBER).sum(1)

    def law(self, theta: Float[Tensor, "6"]) -> JointLaw:
        """The constants about zero."""
        a, b_k, b_n, g, z, e = theta.tolist()
        k, n = self.log_k, self.log_n
        return JointLaw(a - b_k * k - b_n * n + g * k * n, b_k - g * n, b_n - g * k, g, z - e * k, e)

    def theta(self, law: JointLaw) -> Float[Tensor, "6"]:
        """The constants about the centre."""
        a, b_k, b_n, g, z, e = law
        k, n = self.log_k, self.log_n
        about = [a + b_k * k + b_n * n + g * k * n, b_k + g * n, b_n + g * k, g, z + e * k, e]
        return torch.tensor(about, dtype=torch.float64)


def solved(columns: Float[Tensor, "points c"], wanted: Float[Tensor, "points"]) -> Float[Tensor, "c"]:
    return torch.linalg.lstsq(columns, wanted[:, None]).solution[:, 0]


def descend(
    frame: Frame, theta: Float[Tensor, "fits 6"], wanted: Float[Tensor, "fits points"]
) -> Float[Tensor, "fits 6"]:
    """Many fits at once by Levenberg and Marquardt's method, residuals weighted as Huber's loss weighs them."""
    damping = torch.full((len(theta),), 1e-2, dtype=torch.float64)
    cost = frame.cost(theta, wanted)
    for _ in range(STEPS):
        moved = theta - step(frame, theta, wanted, damping)
        after = frame.cost(moved, wanted)
        better = after < cost * (1 - SETTLED)
        theta, cost = torch.where(better[:, None], moved, theta), torch.where(better, after, cost)
        damping = torch.where(better, damping / 3, damping * 4).clamp(min=1e-12)
        if (damping >= 1e4).all():
            break
    return theta


def step(
    frame: Frame, theta: Float[Tensor, "fits 6"], wanted: Float[Tensor, "fits points"], damping: Float[Tensor, "fits"]
) -> Float[Tensor, "fits 6"]:
    """What to take off the constants: weighted least squares on the law made linear here."""
    growing, staying = frame.parts(theta)
    loss = growing + staying
    residuals = loss.log() - wanted
    weights = HUBER / residuals.abs().clamp(min=HUBER)
    slopes = torch.cat(
        [(growing / loss)[..., None] * frame.growing, (staying / loss)[..., None] * frame.staying], -1
    )  # of log-loss by each constant
    weighted = slopes * weights[..., None]
    curvature = weighted.mT @ slopes
    scale = curvature.diagonal(dim1=1, dim2=2).clamp(min=1e-9)
    curvature = curvature + torch.diag_embed(damping[:, None] * scale)
    return torch.linalg.solve(curvature, (weighted * residuals[..., None]).sum(1))
