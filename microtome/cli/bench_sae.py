"""The rows of `microtome bench sae`: one for each way of making a training step, each in a process of its own.

So the memory of one does not count for another. Every step sees the same synthetic activations: sparse sums of 4,096
directions whose frequencies fall as a power of their rank, and noise.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import cycle

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.cli.timing import Timing, compared
from microtome.core.errors import Refusal
from microtome.core.fit import Adam, Autograd, Engine, fit
from microtome.core.fit import Objective as AnyObjective
from microtome.core.site import Site
from microtome.data.synthetic import Synthetic, power_law
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.kernels.engine import Make, SparseEngine, available, task_of
from microtome.dictionaries.objectives import AuxK, Objective, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.selection import batch_top, fast_bfloat16

AUTOGRAD, SELECTION = "autograd", "BatchTopK selection"
DIRECTIONS, DRAWN = 4096, 512  # of the activations: features, and rows drawn at once
BATCHES = 4  # different ones, taken in turn


@dataclass(frozen=True)
class Point:
    """One size of a training step. `dead` is the share of latents that are dead, so that AuxK acts."""

    d_in: int
    width: int
    k: int
    batch: int
    repeats: int
    dead: float = 0.0
    row: str = AUTOGRAD

    def refuse_nonsense(self) -> None:
        if not 1 <= self.k <= self.width:
            raise Refusal(f"k is {self.k} with {self.width} latents; it must be from 1 to the width")
        if min(self.d_in, self.batch, self.repeats) < 1:
            raise Refusal(f"d_in, batch and repeats are {self.d_in}, {self.batch} and {self.repeats}; all at least 1")
        if not 0 <= self.dead < 1:
            raise Refusal(f"dead is {self.dead:g}; give a share of the latents, at least 0 and below 1")


def time_sae(point: Point) -> list[Timing]:
    """Every way there is here, the one that `fit` takes first, then the selection of BatchTopK."""
    point.refuse_nonsense()
    names = [*reversed(available(torch.empty(1, point.d_in))), AUTOGRAD, SELECTION]
    return [alone(replace(point, row=name)) for name in names]


def alone(point: Point) -> Timing:
    """One row, in a process of its own with as many threads as this one. Raises Refusal where it did not survive."""
    asked = json.dumps([asdict(point), torch.get_num_threads()])
    done = subprocess.run([sys.executable, "-m", __name__, asked], capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise Refusal(f"the row {point.row!r} could not be timed: {said}; try a smaller width or batch")
    return Timing.model_validate_json(done.stdout.splitlines()[-1])


def row(point: Point) -> Timing:
    """One row, here."""
    batches = activations(point)
    return selection(point, batches[0]) if point.row == SELECTION else training(point, batches)


def training(point: Point, batches: list[Float[Tensor, "batch d_in"]]) -> Timing:
    """One training step, beside the encoder's product alone in the precision of the search."""
    sae, objective = learner(point)
    ways = available(sae.W_enc)
    used = point.row == list(ways)[-1]
    learning = fit(sae, [], objective, engine=None if used else partial(engine_of, ways.get(point.row)))
    dtype = torch.bfloat16 if fast_bfloat16(batches[0].device) else torch.float32
    low, weights = batches[0].to(dtype), sae.W_enc.detach().to(dtype)
    room = low.new_empty(point.batch, point.width)  # no page of it is there before the floor is taken
    turn = cycle(batches)
    floor = f"encoder product, {str(dtype).removeprefix('torch.')}"
    found = compared(
        f"sae step, {point.row}", lambda: learning.step(next(turn)), floor,
        lambda: torch.mm(low, weights.T, out=room), point.batch, point.repeats,
    )  # fmt: skip
    return found.model_copy(update={"used": used})


def learner(point: Point) -> tuple[SAE, Objective]:
    """What learns, and what from."""
    sae = SAE(
        Site("bench", "batch d"), point.d_in, point.width, TopK(point.k), generator=torch.Generator().manual_seed(0)
    )
    aux = AuxK(point.width)
    kill(sae, aux, point.dead)
    return sae, Reconstruction() + aux


def engine_of(make: Make | None, learned: nn.Module, objective: AnyObjective, adam: Adam) -> Engine:
    """The engine over one set of kernels, or autograd where there is none."""
    if make is None:
        return Autograd(learned, objective, adam)
    task = task_of(objective)
    assert task is not None and isinstance(learned, SAE)
    return SparseEngine(learned, task, adam, make)


@torch.no_grad()
def kill(sae: SAE, aux: AuxK, share: float) -> None:
    """Have the first latents count as dead, and read so faintly that they stay so for a while."""
    dead = slice(0, int(share * len(sae)))
    sae.W_enc[dead].mul_(0.1)
    aux.silent[dead] = aux.dead_after


def selection(point: Point, x: Float[Tensor, "batch d_in"]) -> Timing:
    """What BatchTopK adds to the encoder's product, beside a flattened top-k of scores that are there already."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.nn.functional.normalize(torch.randn(point.width, point.d_in, generator=generator), dim=1)
    bias, dtype = torch.zeros(point.width), torch.bfloat16 if fast_bfloat16(x.device) else torch.float32
    low, searched = x.to(dtype), weights.to(dtype)
    scores = cache(lambda: x @ weights.T)  # only made once the peak is taken
    return compared(
        SELECTION, lambda: batch_top(x, weights, bias, point.k), "flattened top-k, float32",
        lambda: scores().flatten().topk(point.batch * point.k, sorted=False), point.batch, point.repeats,
        lambda: low @ searched.T,
    )  # fmt: skip


def activations(point: Point) -> list[Float[Tensor, "batch d_in"]]:
    """Some batches of synthetic activations, drawn few rows at a time so that drawing is not what takes most memory."""
    generator = torch.Generator().manual_seed(1)
    source = Synthetic(
        DIRECTIONS, point.d_in, generator=generator, frequencies=power_law(DIRECTIONS), noise=0.05
    )  # fmt: skip
    sizes = [min(DRAWN, point.batch - start) for start in range(0, point.batch, DRAWN)]
    return [torch.cat([source.draw(size, generator).x for size in sizes]) for _ in range(BATCHES)]


def main(asked: str) -> None:
    """What a process of its own does: one row, said on standard output."""
    settings, threads = json.loads(asked)
    torch.set_num_threads(threads)
    print(row(Point(**settings)).model_dump_json())


if __name__ == "__main__":
    main(sys.argv[1])
