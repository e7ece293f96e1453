"""A scheduled objective is the objective times its schedule, and remembers where it was."""

import torch

from microtome.core.fit import fit
from microtome.core.schedule import WarmUp
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import ReLU
from microtome.dictionaries.objectives import Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.scheduled import Scheduled
from microtome.dictionaries.sparsity import Sparsity


def test_the_term_is_the_plain_term_times_the_schedule(generator: torch.Generator) -> None:
    sae, x = SAE(Site("x"), 6, 12, ReLU(), generator=generator), torch.randn(20, 6, generator=generator)
    plain = Sparsity()(sae, x)["sparsity"]
    warming = Scheduled(Sparsity(), WarmUp(4))
    for share in (0.25, 0.5, 0.75, 1, 1):
        torch.testing.assert_close(warming(sae, x)["sparsity"], share * plain)


def test_it_goes_on_where_it_was(generator: torch.Generator) -> None:
    x = [torch.randn(20, 6, generator=generator) for _ in range(6)]

    def learning() -> fit:
        sae = SAE(Site("x"), 6, 12, ReLU(), generator=torch.Generator().manual_seed(0))
        return fit(sae, x, Reconstruction() + Scheduled(Sparsity(), WarmUp(5)))

    steps = list(learning())
    first, second = learning(), learning()
    for batch in x[:3]:
        first.step(batch)
    second.load_state_dict(first.state_dict())
    assert [second.step(batch) for batch in x[3:]] == steps[3:]
