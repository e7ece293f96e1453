"""Train the toys that ship with the package anew.

python scripts/train_toys.py [NAME ...]

Without names, all of them: superposition-5-2, superposition-40-10, modular-addition and residual-mlp-1.
"""

import sys
from collections.abc import Callable

import torch
from torch.nn import functional as F

from microtome.core.schedule import Cosine, Linear
from microtome.store.checkpoint import save_state
from microtome.toys.modular import ModularAddition
from microtome.toys.named import MODULUS, TRAINED, compressed, drawn, grokking_network
from microtome.toys.residual_mlp import ResidualMLP
from microtome.toys.sparse import Sparse
from microtome.toys.superposition import Superposition
from microtome.toys.toy import Toy, learn


def superposition(count: int, hidden: int, seeds: int, steps: int) -> Superposition:
    """The best of some seeds by its own loss: in two dimensions many stop at four features of five."""
    generator = drawn()
    made = Superposition(count, hidden, generator=generator, seeds=seeds)
    learn(made, Sparse(count, 0.05, seeds=seeds).batches(1024, steps, generator), schedule=Linear(steps // 2, steps))
    with torch.no_grad():
        x = Sparse(count, 0.05).draw(20_000, generator)
        missed = (made(x.expand(seeds, -1, -1)) - x).pow(2).mean((1, 2))
    print("mean square errors:", ", ".join(f"{v:.5f}" for v in missed.sort().values.tolist()))
    return made.one(int(missed.argmin()))


def residual_mlp(steps: int = 1000, rows: int = 2048) -> ResidualMLP:
    """In batches of the paper's size, at its rate, which falls to 0."""
    made = compressed()
    data = Sparse(100, 0.01, low=-1.0)
    loss = learn(made, data.batches(rows, steps, drawn(1)), lr=3e-3, schedule=Cosine(0, steps))
    print(f"loss {loss:.5f} a row")
    return made


def modular_addition(steps: int = 5000, share: float = 0.8) -> ModularAddition:
    """The paper's optimiser, full batches; the test pairs are got right at the end."""
    made = grokking_network()
    order = torch.randperm(MODULUS**2, generator=drawn(1))
    seen = (order < int(share * MODULUS**2)).view(MODULUS, MODULUS)
    optimiser = torch.optim.AdamW(made.parameters(), lr=1e-3, weight_decay=1.0, betas=(0.9, 0.98))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1.0, (step + 1) / 10)
        loss = F.cross_entropy(*asked(made, seen))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        print(f"train {loss:.2e}, test {F.cross_entropy(*asked(made, ~seen)):.2e} nats")
    return made


def asked(made: ModularAddition, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits in double precision, as the smallest losses have no gradient in single, and the answers."""
    a, b = which.nonzero().T
    return made.answers(a, b).double(), (a + b) % MODULUS


TOYS: dict[str, Callable[[], Toy]] = {
    "superposition-5-2": lambda: superposition(5, 2, seeds=12, steps=5000),
    "superposition-40-10": lambda: superposition(40, 10, seeds=1, steps=4000),
    "modular-addition": modular_addition,
    "residual-mlp-1": residual_mlp,
}


if __name__ == "__main__":
    TRAINED.mkdir(exist_ok=True)
    for name in sys.argv[1:] or TOYS:
        print(name, flush=True)
        weights = {n: w.detach() for n, w in TOYS[name]().named_parameters()}
        save_state(weights, TRAINED / f"{name}.safetensors")
