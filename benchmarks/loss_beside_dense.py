"""The loss of every sparse path after training, beside the dense float32 reference on the same batches. Run by hand.

    python benchmarks/loss_beside_dense.py [--steps 2000] [--width 1024] [--k 16] [--batch 512]

Each learns a TopK dictionary with AuxK from the specimen's residual stream over the standard library. The reference
makes whole pre-activations and codes in float32, and its gradients by autograd. All begin with the same weights and see
the same batches in the same order. Said is the mean unexplained share over the last 100 steps, and over held-out rows.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from microtome.cli.bench_sae import engine_of
from microtome.core.fit import Adam, Autograd, Engine, Step, fit
from microtome.core.fit import Objective as AnyObjective
from microtome.core.site import Site
from microtome.data.corpus import corpus
from microtome.data.text import Part
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.kernels.engine import available
from microtome.dictionaries.normalisation import UnitMeanSquare
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.store.stream import stream

DEAD_AFTER = 100_000  # tokens: so soon that AuxK acts
LAST = 100  # steps at the end over which the loss is a mean
Make = Callable[[torch.nn.Module, AnyObjective, Adam], Engine]


class Dense(Reconstruction):
    """Reconstruction and AuxK as dense formulas: whole pre-activations, codes scattered into zeros, autograd."""

    def __init__(self, width: int):
        super().__init__()
        self.aux = AuxK(width, DEAD_AFTER)

    def __call__(self, learned: torch.nn.Module, batch: Tensor) -> dict[str, Tensor]:
        assert isinstance(learned, SAE) and isinstance(learned.activation, TopK)
        x = learned.normalisation(batch)
        u = x - learned.b_dec
        pre = u @ learned.W_enc.T + learned.b_enc
        best = pre.topk(learned.activation.k, 1)
        codes = torch.zeros_like(pre).scatter(1, best.indices, best.values.relu())
        missing = u - codes @ learned.W_dec
        unexplained = missing.pow(2).sum() / (x - x.mean(0)).pow(2).sum()
        return {"unexplained": unexplained, "auxk": self._revival(learned, pre, codes.detach(), missing.detach())}

    def _revival(self, learned: SAE, pre: Tensor, codes: Tensor, missing: Tensor) -> Tensor:
        """AuxK's term over the latents that have been silent for long, as Gao et al. 2024, appendix A.2, say it."""
        active = (codes > 0).any(0)
        silent = self.aux.silent
        silent.add_(len(codes)).masked_fill_(active, 0)
        dead = silent > self.aux.dead_after
        if not dead.any():
            return missing.new_zeros(())
        count = min(self.aux.k_aux or missing.shape[1] // 2, int(dead.sum()))
        best = pre.masked_fill(~dead, -torch.inf).topk(count, 1)
        revived = torch.zeros_like(pre).scatter(1, best.indices, best.values.relu()) @ learned.W_dec
        spread = (missing - missing.mean(0)).pow(2).sum()
        return self.aux.weight * (missing - revived).pow(2).sum() / spread


def learner(width: int, k: int, first: Tensor) -> SAE:
    generator = torch.Generator().manual_seed(0)
    return SAE(Site("resid_post.2"), first.shape[1], width, TopK(k), UnitMeanSquare.of(first), generator=generator)


def unexplained(steps: Iterator[Step]) -> float:
    """The mean over the last steps."""
    last = [step.parts["unexplained"] for step in steps][-LAST:]
    return sum(last) / len(last)


def read(model: HookedModel, part: Part, batch: int, count: int) -> list[Tensor]:
    """So many batches of the specimen's residual stream over the standard library."""
    found = stream(model, list(corpus(model, part=part)), model.site("resid_post.2"), batch, tokens=count * batch)
    return [rows for rows in found if isinstance(rows, Tensor)]


@torch.no_grad()
def held_out(sae: SAE, x: Tensor) -> float:
    """The share of the variance of rows never seen that is missed, in double precision."""
    found = sae.double().reconstruct(x.double())
    return float((found - x).pow(2).sum() / (x - x.mean(0)).double().pow(2).sum())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 2000), ("width", 1024), ("k", 16), ("batch", 512)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    given = arguments.parse_args()
    model = load("specimen")
    batches = read(model, "train", given.batch, given.steps)
    judged = torch.cat(read(model, "held_out", given.batch, 32))
    print(f"{len(batches)} batches of {given.batch} rows, d {judged.shape[1]}, {given.width} latents, k {given.k}")
    made = {name: partial(engine_of, make) for name, make in available(batches[0][:1]).items()}
    reference: tuple[float, float] | None = None
    for name, engine in {"dense, float32": Autograd, "autograd": Autograd, **made}.items():
        sae = learner(given.width, given.k, batches[0])
        objective = Dense(given.width) if reference is None else Reconstruction() + AuxK(given.width, DEAD_AFTER)
        begun = time.perf_counter()
        seen = unexplained(iter(fit(sae, batches, objective, lr=1e-3, engine=engine)))
        seconds, new = time.perf_counter() - begun, held_out(sae, judged)
        reference = reference or (seen, new)
        print(
            f"{name:16} loss {seen:.5f} ({seen / reference[0] - 1:+.3%})   held out {new:.5f} "
            f"({new / reference[1] - 1:+.3%})   {seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
