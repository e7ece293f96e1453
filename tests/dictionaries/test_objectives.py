"""Every term of every objective is the formula of its paper, made densely in double precision; its gradient too."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import AbsTopK, Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from microtome.dictionaries.constraints import Free
from microtome.dictionaries.nested import FewerActive, Matryoshka, MultiTopK
from microtome.dictionaries.normalisation import UnitMeanSquare
from microtome.dictionaries.objectives import Objective, Reconstruction
from microtome.dictionaries.orthogonality import Orthogonality
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.sparsity import (
    L0,
    Annealed,
    Frequency,
    GateAlone,
    PreActivation,
    Sparsity,
    TanhL0,
    TargetL0,
)

SITE, D, WIDTH, K = Site("resid_post.0"), 6, 24, 3


def sample(rows: int = 50) -> Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(5)) * torch.linspace(0.5, 2, D) + 1


def made(activation: Activation) -> SAE:
    generator = torch.Generator().manual_seed(0)
    sae = SAE(SITE, D, WIDTH, activation, UnitMeanSquare.of(sample(500)), Free(), generator=generator)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.2 * torch.rand(parameter.shape, generator=generator))
    return sae.double().train()


class Dense:
    """The same dictionary by the formulas of the docstrings."""

    def __init__(self, sae: SAE, x: Tensor):
        self.sae, self.units = sae, sae.normalisation
        self.x = x
        self.pre = (self.units(x) - sae.b_dec) @ sae.W_enc.T + sae.b_enc

    def decode(self, codes: Tensor) -> Tensor:
        return self.units.undo(codes @ self.sae.W_dec + self.sae.b_dec)

    def missed(self, codes: Tensor) -> Tensor:
        return (self.x - self.decode(codes)).pow(2).sum() / (self.x - self.x.mean(0)).pow(2).sum()

    def top(self, k: int) -> Tensor:
        best = self.pre.topk(k, -1)
        return torch.zeros_like(self.pre).scatter(-1, best.indices, best.values.relu())

    def batch_top(self) -> Tensor:
        least = self.pre.relu().flatten().topk(K * len(self.x)).values[-1]
        return self.pre.relu() * (self.pre >= least)

    def gated(self) -> Tensor:
        activation = self.sae.activation
        return (activation.r.exp() * self.pre + activation.b).relu() * (self.pre > 0)

    @property
    def lengths(self) -> Tensor:
        return self.sae.W_dec.norm(dim=1)


def gate_alone(d: Dense) -> Tensor:
    gate = d.pre.relu()
    frozen = d.units.undo(gate @ d.sae.W_dec.detach() + d.sae.b_dec.detach())
    missed = (d.x - frozen).pow(2).sum() / (d.x - d.x.mean(0)).pow(2).sum()
    return 0.3 * (gate * d.lengths.detach()).sum() / len(d.x) + missed


def nested(d: Dense) -> Tensor:
    codes = d.batch_top()
    return torch.stack([d.missed(codes * (torch.arange(WIDTH) < w)) for w in (4, 10, WIDTH)]).mean()


def largest_cosines(rows: Tensor) -> Tensor:
    return (rows @ rows.T - 9 * torch.eye(len(rows))).amax(1)


CASES: dict[str, tuple[Callable[[], Activation], Callable[[], Objective], Callable[[Dense], Tensor]]] = {
    "ReLU": (ReLU, Reconstruction, lambda d: d.missed(d.pre.relu())),
    "TopK": (lambda: TopK(K), Reconstruction, lambda d: d.missed(d.top(K))),
    "BatchTopK": (lambda: BatchTopK(K), Reconstruction, lambda d: d.missed(d.batch_top())),
    "AbsTopK": (
        lambda: AbsTopK(K),
        Reconstruction,
        lambda d: d.missed(
            torch.zeros_like(d.pre).scatter(-1, (i := d.pre.abs().topk(K).indices), d.pre.gather(-1, i))
        ),
    ),
    "Gated": (lambda: Gated(WIDTH), Reconstruction, lambda d: d.missed(d.gated())),
    "JumpReLU": (
        lambda: JumpReLU(WIDTH, 0.4, 1e-9),
        Reconstruction,
        lambda d: d.missed(d.pre * (d.pre > d.sae.activation.thresholds)),
    ),
    "L1": (ReLU, Sparsity, lambda d: (d.pre.relu() * d.lengths).sum() / len(d.x)),
    "Lp": (
        ReLU,
        lambda: Sparsity(0.5),
        lambda d: (d.pre[d.pre > 0] * d.lengths.expand_as(d.pre)[d.pre > 0]).sqrt().sum() / len(d.x),
    ),
    "gate alone": (lambda: Gated(WIDTH), lambda: GateAlone(0.3), gate_alone),
    "Matryoshka": (lambda: BatchTopK(K), lambda: Matryoshka([4, 10, WIDTH]), nested),
    "fewer active": (
        lambda: TopK(K),
        lambda: FewerActive([1, K]),
        lambda d: (d.missed(d.top(1)) + d.missed(d.top(K))) / 2,
    ),
    "multi TopK": (lambda: TopK(K), MultiTopK, lambda d: d.missed(d.top(4 * K)) / 8),
    "orthogonality": (
        ReLU,
        Orthogonality,
        lambda d: largest_cosines(normalize(d.sae.W_dec, dim=1)).pow(2).mean(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_term_and_its_gradient_are_its_formula(name: str) -> None:
    activation, objective, formula = CASES[name]
    sae, x = made(activation()), sample().double()
    torch.stack(list(objective()(sae, x).values())).sum().backward()
    again = made(activation())
    expected = formula(Dense(again, x))
    expected.backward()
    found = sum(objective()(made(activation()), x).values())
    torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-9)
    for (what, parameter), other in zip(sae.named_parameters(), again.parameters(), strict=True):
        if what == "activation.thresholds":
            continue
        one, two = (torch.zeros_like(p) if p.grad is None else p.grad for p in (parameter, other))
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9, msg=lambda m, what=what: f"{what}: {m}")


def jumping(bandwidth: float = 0.5) -> tuple[SAE, Tensor, Tensor]:
    sae, x = made(JumpReLU(WIDTH, 0.4, bandwidth)), sample().double()
    return sae, x, Dense(sae, x).pre.detach()


def near(sae: SAE, pre: Tensor, bandwidth: float = 0.5) -> Tensor:
    return ((pre - sae.activation.thresholds).abs() < bandwidth / 2).double()


def test_the_l0_penalty_counts_and_moves_thresholds_by_the_papers_pseudo_derivative() -> None:
    sae, x, pre = jumping()
    found = L0()(sae, x)["l0"]
    assert found.item() == pytest.approx((pre > sae.activation.thresholds).sum().item() / len(x))
    found.backward()
    expected = -near(sae, pre).sum(0) / 0.5 / len(x)
    torch.testing.assert_close(sae.activation.thresholds.grad, expected)
    assert sae.W_enc.grad is None or not sae.W_enc.grad.any()


def test_reconstruction_moves_thresholds_from_both_sides_of_the_window() -> None:
    sae, x, pre = jumping()
    error = (x - sae(sae.encode(x))).detach()
    variance = (x - x.mean(0)).pow(2).sum()
    Reconstruction()(sae, x)["unexplained"].backward()
    to_codes = -2 * error @ (sae.W_dec * sae.normalisation.scale).T / variance
    expected = (to_codes * near(sae, pre) * -sae.activation.thresholds / 0.5).sum(0)
    assert ((pre < sae.activation.thresholds) & near(sae, pre).bool()).any()
    torch.testing.assert_close(sae.activation.thresholds.grad, expected.detach(), rtol=1e-6, atol=1e-9)


def test_the_other_penalties_on_thresholds_are_their_formulas() -> None:
    sae, x, pre = jumping()
    thresholds, lengths = sae.activation.thresholds, sae.W_dec.norm(dim=1)
    fired = (pre > thresholds).double()
    codes = pre * fired
    for objective, expected in (
        (TargetL0(5.0), (fired.sum(1).mean() / 5 - 1) ** 2),
        (TanhL0(), torch.tanh(4 * codes * lengths).sum(1).mean()),
        (PreActivation(), ((thresholds - pre).relu() * lengths).sum(1).mean()),
        (Frequency(0.2), (fired.mean(0) / 0.2 - 1).relu().pow(2).sum()),
    ):
        torch.testing.assert_close(sum(objective(sae, x).values()), expected)


def test_thresholds_find_the_l0_that_is_asked_for() -> None:
    from microtome.core.fit import fit

    x = sample(4000)
    sae = SAE(
        SITE, D, WIDTH, JumpReLU(WIDTH, bandwidth=0.2), UnitMeanSquare.of(x), generator=torch.Generator().manual_seed(0)
    )
    list(fit(sae, [x[i : i + 200] for i in range(0, 4000, 200)] * 20, Reconstruction() + TargetL0(4.0), lr=5e-3))
    assert sae.encode(x).l0().item() == pytest.approx(4.0, rel=0.25)


def test_annealing_lowers_the_power_and_keeps_the_size() -> None:
    sae, x, penalty = made(ReLU()), sample().double(), Annealed(start=2, stop=6).double()
    found = [penalty(sae, x)["sparsity"].item() for _ in range(8)]
    assert penalty.power(0) == penalty.power(2) == 1.0 and penalty.power(6) == penalty.power(9) == pytest.approx(0.2)
    assert found == pytest.approx([found[0]] * 8, rel=1e-6)


def test_a_batch_threshold_is_remembered_and_serves_one_token_alone() -> None:
    sae, x = made(BatchTopK(K)), sample().double()
    batch = sae.encode(x)
    assert batch.l0().item() == pytest.approx(K)
    least = sae.activation.threshold
    torch.testing.assert_close(least, batch.values.min())
    sae.eval()
    alone = torch.cat([sae.encode(row[None]).dense() for row in x])
    torch.testing.assert_close(alone, sae.encode(x).dense())
    torch.testing.assert_close(alone, Dense(sae, x).pre * (Dense(sae, x).pre > least))


def test_a_calibrated_threshold_leaves_k_active_on_the_mean_token() -> None:
    sae, x = made(BatchTopK(K)).eval(), sample().double()
    sae.calibrate(x)
    assert sae.encode(x).l0().item() == pytest.approx(K)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Matryoshka([4, 2]), "widths are .4, 2.; prefixes must be positive and grow"),
        (lambda: FewerActive([]), "name how many active codes are kept"),
        (
            lambda: Matryoshka([4, 999])(made(ReLU()), sample().double()),
            "the prefix of 999 is more than the 24 latents",
        ),
        (lambda: L0()(made(ReLU()), sample().double()), "ReLU has no thresholds to learn; use JumpReLU"),
        (lambda: MultiTopK()(made(ReLU()), sample().double()), "for dictionaries with one TopK activation"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence):
        make()
