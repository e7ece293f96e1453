"""A fit that is stopped anywhere and run again ends where it would have ended, bit for bit."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.core.fit import Autograd, fit
from microtome.core.schedule import Linear, WarmUp
from microtome.core.site import Site
from microtome.core.together import together
from microtome.dictionaries.activation_functions import BatchTopK, JumpReLU, ReLU, TopK
from microtome.dictionaries.nested import MultiTopK
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.scheduled import Scheduled
from microtome.dictionaries.sparsity import L0, Annealed, Sparsity
from microtome.store.checkpoint import load_state
from microtome.store.resuming import resumable
from microtome.store.shards import Activations, ShardWriter

STEPS = 7


class Drawn:
    """Batches drawn by a generator of its own, with a cursor."""

    def __init__(self) -> None:
        self.generator, self.served = torch.Generator().manual_seed(5), 0

    def __iter__(self) -> Iterator[Tensor]:
        while self.served < STEPS:
            self.served += 1
            yield torch.randn(32, 8, generator=self.generator)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "served": self.served}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.served = state["served"]


class Dropping(nn.Module):
    """Drops inputs by torch's own generator."""

    def forward(self, learned: SAE, batch: Tensor) -> dict[str, Tensor]:
        return Reconstruction()(learned, nn.functional.dropout(batch, 0.3))


def sae(activation: nn.Module, width: int = 24) -> SAE:
    return SAE(Site("x"), 8, width, activation, generator=torch.Generator().manual_seed(1))


FITS: dict[str, Callable[[Any], fit]] = {
    "topk, auxk": lambda s: fit(
        sae(TopK(3)), s, Reconstruction() + AuxK(24, dead_after=60), lr=1e-2, schedule=WarmUp(3) * Linear(4, 7)
    ),
    "topk, auxk by autograd": lambda s: fit(
        sae(TopK(3)), s, Reconstruction() + AuxK(24, dead_after=60), lr=1e-2, engine=Autograd
    ),
    "batch topk": lambda s: fit(sae(BatchTopK(3)), s, Reconstruction() + AuxK(24, dead_after=60), lr=1e-2),
    "p-annealing": lambda s: fit(sae(ReLU()), s, Reconstruction() + 0.01 * Annealed(2, 6), lr=1e-2, clip=1.0),
    "multi topk": lambda s: fit(sae(TopK(2)), s, Reconstruction() + MultiTopK(), lr=1e-2),
    "jump, on a schedule": lambda s: fit(
        sae(JumpReLU(24, 0.1, 0.1)), s, Reconstruction() + Scheduled(0.01 * L0(), WarmUp(5)), lr=1e-2
    ),
    "by chance": lambda s: fit(sae(ReLU()), s, Dropping(), lr=1e-2),
    "together": lambda s: together(
        {
            "a": fit(sae(TopK(3)), [], Reconstruction()),
            "b": fit(sae(ReLU(), 12), [], Reconstruction() + 0.1 * Sparsity(), lr=1e-2),
        },
        s,
    ),
}


def started(make: Callable[[Any], Any], path: Path, every: int = 1) -> tuple[Any, Iterator]:
    torch.manual_seed(9)
    stream = Drawn()
    learning = make(stream)
    return learning, resumable(learning, stream, path, every=every)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("kind", FITS)
def test_stopped_after_any_step_it_ends_where_it_would_have_ended(kind: str, every: int, tmp_path: Path) -> None:
    whole, steps = started(FITS[kind], tmp_path / "whole")
    wanted = list(steps)
    assert len(wanted) == STEPS
    for stop in range(1, STEPS + 1) if every == 1 else (2, 4):
        path = tmp_path / f"{stop}.safetensors"
        first = list(islice(started(FITS[kind], path, every)[1], stop))
        again, rest = started(FITS[kind], path, every)
        saved = stop // every * every
        assert first == wanted[:stop] and list(rest) == wanted[saved:]
        assert identical(again.state_dict(), whole.state_dict())


def identical(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def test_a_fit_over_a_harvest_goes_on_in_the_middle_of_an_epoch(tmp_path: Path, generator: torch.Generator) -> None:
    writer = ShardWriter(tmp_path / "acts", {"sites": ["x"]}, rows_per_shard=50)
    for _ in range(4):
        writer.append({"x": torch.randn(40, 8, generator=generator)}, 1)
    writer.finish()

    def learning(path: Path) -> tuple[fit, Iterator]:
        batches = Activations(tmp_path / "acts").batches(32, epochs=2)
        made = FITS["topk, auxk"](batch.clone() for batch in batches)
        return made, resumable(made, batches, path, every=2)

    wanted = list(learning(tmp_path / "whole")[1])
    assert len(wanted) == 10
    list(islice(learning(tmp_path / "cut")[1], 7))
    assert list(learning(tmp_path / "cut")[1]) == wanted[6:]
    assert list(learning(tmp_path / "cut")[1]) == []  # finished


def test_generators_that_learning_draws_from_are_kept(tmp_path: Path) -> None:
    def learning(path: Path) -> Iterator:
        stream, noise = Drawn(), torch.Generator().manual_seed(2)
        noisy = (batch + torch.randn(batch.shape, generator=noise) for batch in stream)
        return resumable(FITS["multi topk"](noisy), stream, path, every=1, generators={"noise": noise})

    wanted = list(learning(tmp_path / "whole"))
    list(islice(learning(tmp_path / "cut"), 3))
    assert list(learning(tmp_path / "cut")) == wanted[3:]


def test_a_checkpoint_that_is_cut_off_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"
    list(islice(started(FITS["topk, auxk"], path)[1], 2))
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(Refusal, match=r"training.safetensors is damaged; delete it to begin anew"):
            started(FITS["topk, auxk"], path)


def test_a_file_of_tensors_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(Refusal, match="other.safetensors is damaged; delete it to begin anew"):
        load_state(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "other, said",
    [
        (lambda s: fit(sae(TopK(3), 20), s, Reconstruction() + AuxK(20)), r"learned\.\w+ is 24[ x8]* \w+, and here it is 20"),
        (lambda s: fit(sae(ReLU()), s, Reconstruction()), r"has .* only in one of the two"),
        (lambda s: fit(sae(BatchTopK(3)), s, Reconstruction() + AuxK(24)), r"threshold only in one of the two"),
        (lambda s: together([fit(sae(TopK(3)), [], Reconstruction())], s), r"fits.* only in one of the two"),
    ],
    ids=["width", "objective", "activation", "several"],
)  # fmt: skip
def test_a_checkpoint_of_another_shape_is_refused_before_anything_changes(
    other: Callable[[Any], Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "training.safetensors"
    list(islice(started(FITS["topk, auxk"], path)[1], 2))
    stream = Drawn()
    learning = other(stream)
    before = {name: value.clone() for name, value in flat(learning.state_dict()).items()}
    with pytest.raises(Refusal, match=rf"of another fit: .*{said}.*; make the fit as it was, or choose another path"):
        resumable(learning, stream, path)
    after = flat(learning.state_dict())
    assert all(torch.equal(before[name], after[name]) for name in before) and stream.served == 0


def flat(state: Any, where: str = "") -> dict[str, Tensor]:
    if isinstance(state, Tensor):
        return {where: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else []
    return {name: tensor for key, item in items for name, tensor in flat(item, f"{where}.{key}").items()}


def test_saving_less_than_never_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"every is 0; save after each step \(1\) or fewer"):
        started(FITS["topk, auxk"], tmp_path / "x", every=0)
