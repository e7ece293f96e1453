"""What a network holds true, found without labels: directions along which opposite answers stand opposite.

Burns et al. 2022, Discovering Latent Knowledge in Language Models Without Supervision (arXiv 2212.03827): CCS by
consistency, CRC by the principal component of differences. Mallen & Belrose 2023, VINC: variance between questions,
less variance between their wordings and agreement of opposite answers.

Any feature that is opposite in opposite answers satisfies all of them as well as truth does (Farquhar et al. 2023,
arXiv 2312.10029). So restarts that end about as well are asked whether they agree, and `verdict` says when they do not.
Nothing here says which answer is yes: `orient` asks labels of questions that were learned from, never those tested on.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.directions.pairs_of_answers import AnswerPairs, Norms

NEAR = 0.02  # of loss: restarts that end within this of the best are as good
NOTHING = 0.15  # of loss on other questions: 1/4 is one half said to all, and Gaussian noise is brought down to .18
AGREE = 0.9  # of answers, up to exchanging yes and no: below it restarts do not say the same
Verdict = Literal["settled", "ambiguous", "found nothing"]


@dataclass(frozen=True, eq=False)
class LatentKnowledge:
    """A direction for each layer and restart; the best of each layer answers. Losses are NaN where none was sought."""

    norms: Norms
    weight: Float[Tensor, "layers restarts d"]
    bias: Float[Tensor, "layers restarts"]
    loss: Float[Tensor, "layers restarts"]
    sign: Float[Tensor, "layers"]

    @torch.no_grad()
    def every(self, pairs: AnswerPairs) -> Float[Tensor, "layers restarts questions"]:
        """The probability of yes by every restart: half of p(yes) + 1 - p(no)."""
        normed = self.norms(pairs)
        yes, no = (torch.sigmoid(logits(x, self.weight, self.bias)) for x in (normed.yes, normed.no))
        return (yes + 1 - no) / 2

    def answers(self, pairs: AnswerPairs) -> Float[Tensor, "layers questions"]:
        """The probability of yes by the restart whose loss is least, or its opposite once oriented so."""
        said = self.every(pairs)[torch.arange(len(self.best)), self.best]
        return torch.where(self.sign[:, None] > 0, said, 1 - said)

    @property
    def best(self) -> Tensor:
        return self.loss.nan_to_num(0.0).argmin(1)

    def orient(self, pairs: AnswerPairs, true: Bool[Tensor, "questions"]) -> "LatentKnowledge":
        """With yes and no exchanged in the layers where that is right more often on these labelled questions."""
        right = ((self.answers(pairs) > 0.5) == true).float().mean(1)
        return replace(self, sign=torch.where(right < 0.5, -self.sign, self.sign))

    def accuracy(self, pairs: AnswerPairs, true: Bool[Tensor, "questions"]) -> Float[Tensor, "layers"]:
        """The share of questions answered right, as oriented: below one half where the orientation is wrong."""
        return ((self.answers(pairs) > 0.5) == true).float().mean(1)

    def agreement(self, pairs: AnswerPairs) -> Float[Tensor, "layers"]:
        """The least share of answers that a restart as good as the best has in common with it, yes being no or not."""
        said = self.every(pairs) > 0.5
        best = said[torch.arange(len(self.best)), self.best]
        same = (said == best[:, None]).float().mean(2)
        as_good = self.loss <= self.loss.amin(1, keepdim=True) + NEAR
        return torch.maximum(same, 1 - same).masked_fill(~as_good, 1.0).amin(1)

    @torch.no_grad()
    def loss_on(self, pairs: AnswerPairs) -> Float[Tensor, "layers"]:
        """What the best restart's loss is on other questions than it was learned from."""
        normed = self.norms(pairs)
        each = inconsistency(self.weight, self.bias, *(x.permute(1, 2, 0) for x in (normed.yes, normed.no)))
        return each[torch.arange(len(self.best)), self.best]

    def verdict(self, others: AnswerPairs) -> list[Verdict]:
        """Layer by layer, on questions that were not learned from: "found nothing" where answers are not consistent
        there, "ambiguous" where restarts as good as the best answer otherwise. Raises Refusal without restarts."""
        if self.loss.isnan().any() or self.loss.shape[1] < 2:
            raise Refusal("one solution cannot disagree with itself; a verdict needs at least 2 restarts of ccs")
        return [
            "found nothing" if loss > NOTHING else "ambiguous" if agreed < AGREE else "settled"
            for loss, agreed in zip(self.loss_on(others).tolist(), self.agreement(others).tolist(), strict=True)
        ]


def logits(
    x: Float[Tensor, "questions layers d"], weight: Float[Tensor, "layers restarts d"], bias: Tensor
) -> Float[Tensor, "layers restarts questions"]:
    return torch.bmm(weight, x.permute(1, 2, 0)) + bias[..., None]


def ccs(
    pairs: AnswerPairs,
    *,
    restarts: int = 10,
    epochs: int = 1000,
    lr: float = 1e-2,
    decay: float = 1e-2,
    generator: torch.Generator | None = None,
) -> LatentKnowledge:
    """Contrast-consistent search, all layers and restarts at once: AdamW on all questions at every step.

    The loss is the mean of (p(yes) - (1 - p(no)))^2, for consistency, and of min(p(yes), p(no))^2, for confidence
    (equations 1 to 3). Probes are linear.
    """
    norms = Norms.of(pairs)
    normed = norms(pairs)
    yes, no = (x.permute(1, 2, 0).contiguous() for x in (normed.yes, normed.no))
    layers, d, _ = yes.shape
    weight = torch.randn(layers, restarts, d, generator=generator).to(yes)
    weight = (weight / weight.norm(dim=2, keepdim=True)).requires_grad_()
    bias = torch.zeros_like(weight[..., 0], requires_grad=True)
    step = torch.optim.AdamW([weight, bias], lr=lr, weight_decay=decay)
    with torch.enable_grad():
        for _ in range(epochs):
            step.zero_grad()
            inconsistency(weight, bias, yes, no).sum().backward()
            step.step()
    with torch.no_grad():
        loss = inconsistency(weight, bias, yes, no)
    return LatentKnowledge(norms, weight.detach(), bias.detach(), loss, torch.ones_like(loss[:, 0]))


def inconsistency(
    weight: Float[Tensor, "layers restarts d"],
    bias: Float[Tensor, "layers restarts"],
    yes: Float[Tensor, "layers d questions"],
    no: Float[Tensor, "layers d questions"],
) -> Float[Tensor, "layers restarts"]:
    """The loss of `ccs`; .25 for answers of one half."""
    p_yes, p_no = (torch.sigmoid(torch.baddbmm(bias[..., None], weight, x)) for x in (yes, no))
    return ((p_yes - (1 - p_no)).square() + torch.minimum(p_yes, p_no).square()).mean(2)


def crc(pairs: AnswerPairs) -> LatentKnowledge:
    """Contrastive representation clustering: the first principal component of the differences (section 3.3)."""
    norms = Norms.of(pairs)
    difference = norms(pairs).difference.movedim(1, 0)
    return solved(norms, torch.linalg.svd(difference - difference.mean(1, keepdim=True), full_matrices=False).Vh[:, 0])


def vinc(wordings: list[AnswerPairs], *, variance: float = 0.1, negation: float = 0.5) -> LatentKnowledge:
    """The first eigenvector of variance * V - (1 - negation) * I - negation * N, over one or more wordings of the same
    questions in the same order: V the covariance between questions, I that between wordings of one, N the covariance
    of opposite answers. Raises Refusal for wordings of different questions."""
    if len({w.yes.shape for w in wordings}) != 1:
        raise Refusal(f"{len(wordings)} wordings of different shapes; give the same questions in the same order")
    whole = AnswerPairs(torch.cat([w.yes for w in wordings]), torch.cat([w.no for w in wordings]))
    norms = Norms.of(whole)
    yes, no = (torch.stack([getattr(norms(w), side) for w in wordings]) for side in ("yes", "no"))
    centres = [x.mean(0) for x in (yes, no)]
    off = [(x - c).flatten(0, 1) for x, c in zip((yes, no), centres, strict=True)]
    between, within = ((second(a, a) + second(b, b)) / 2 for a, b in (centres, off))
    opposite = second(centres[0], centres[1])
    wanted = variance * between - (1 - negation) * within - negation * (opposite + opposite.mT) / 2
    return solved(norms, torch.linalg.eigh(wanted).eigenvectors[..., -1])


def second(one: Float[Tensor, "rows layers d"], other: Float[Tensor, "rows layers d"]) -> Float[Tensor, "layers d d"]:
    return torch.einsum("nld,nle->lde", one, other) / len(one)


def solved(norms: Norms, direction: Float[Tensor, "layers d"]) -> LatentKnowledge:
    """One direction for each layer, in closed form."""
    nothing = direction.new_zeros(len(direction), 1)
    return LatentKnowledge(norms, direction[:, None], nothing, nothing * torch.nan, nothing[:, 0] + 1)
