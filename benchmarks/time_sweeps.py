"""Eight dictionaries on one batch: in turn, or stacked into one product? Prints processor milliseconds a step.

python benchmarks/time_sweeps.py
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import stack_module_state, vmap
from torch.nn.functional import normalize

from microtome.core.fit import Autograd, fit
from microtome.core.site import Site
from microtome.core.together import together
from microtome.dictionaries.activation_functions import Activation, ReLU, TopK
from microtome.dictionaries.objectives import Reconstruction
from microtome.dictionaries.sae import SAE

MANY = 8
SIZES = [(16, 64, 256), (64, 512, 1024), (256, 4096, 1024)]  # d, latents, batch


def dictionaries(d: int, width: int, activation: Callable[[], Activation]) -> list[SAE]:
    return [
        SAE(Site("x"), d, width, activation(), generator=torch.Generator().manual_seed(seed)) for seed in range(MANY)
    ]


def stacked(saes: list[SAE], x: Tensor) -> Callable[[], None]:
    """A step of all, their weights one tensor, by Adam."""
    weights = {name: w.detach().requires_grad_() for name, w in stack_module_state(saes)[0].items()}
    optimiser = torch.optim.Adam(weights.values(), fused=True)
    variance = (x - x.mean(0)).pow(2).sum()

    def loss(own: dict[str, Tensor]) -> Tensor:
        codes = torch.relu((x - own["b_dec"]) @ own["W_enc"].T + own["b_enc"])
        return (codes @ own["W_dec"] + own["b_dec"] - x).pow(2).sum() / variance

    def step() -> None:
        optimiser.zero_grad()
        vmap(loss)(weights).sum().backward()
        optimiser.step()
        with torch.no_grad():
            weights["W_dec"].copy_(normalize(weights["W_dec"], dim=-1))

    return step


def milliseconds(step: Callable[[], object], times: int = 5) -> float:
    found = []
    for _ in range(times + 1):
        begun = time.process_time()
        step()
        found.append((time.process_time() - begun) * 1e3)
    return statistics.median(found[1:])


def main() -> None:
    torch.set_num_threads(1)
    for d, width, batch in SIZES:
        x = torch.randn(batch, d)
        dense = together([fit(sae, [], Reconstruction(), engine=Autograd) for sae in dictionaries(d, width, ReLU)], [])
        sparse = together([fit(sae, [], Reconstruction()) for sae in dictionaries(d, width, lambda: TopK(8))], [])
        turn = [milliseconds(lambda run=run, x=x: run.step(x)) for run in (dense, sparse)]
        together_in_one = milliseconds(stacked(dictionaries(d, width, ReLU), x))
        sizes = f"d {d}, latents {width}, batch {batch}"
        print(f"{sizes}: dense in turn {turn[0]:.1f}, stacked {together_in_one:.1f}, TopK in turn {turn[1]:.1f}")


if __name__ == "__main__":
    main()
