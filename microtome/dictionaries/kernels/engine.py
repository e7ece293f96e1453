"""The engine of TopK autoencoders: the step that autograd would make, without autograd and without dense codes.

u = normalisation(x) - b_dec;  codes = TopK(W_enc u + b_enc);  error = W_dec codes - u
loss = sum |error|² / sum |x' - mean|²      (units that are one scale for all dimensions cancel)
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.fit import Adam, Batch, Engine, refuse_not_finite
from microtome.core.fit import Objective as AnyObjective
from microtome.core.rows import Rows
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.constraints import UnitRows
from microtome.dictionaries.kernels.parts import Active, Compared, Extra, Kernels, Rate, Weights
from microtome.dictionaries.kernels.revival import Revived, revive
from microtome.dictionaries.kernels.torch_kernels import TorchKernels, move, total
from microtome.dictionaries.normalisation import Unchanged, UnitMeanSquare
from microtome.dictionaries.objectives import AuxK, Objective, Reconstruction, Scaled, Sum
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.selection import fast_bfloat16

Make = Callable[[Weights, int], Kernels]


class Task(NamedTuple):
    """What is made small: `by` times the share left unexplained and, where there is `aux`, `aux_by` times its term."""

    by: float
    aux: AuxK | None
    aux_by: float


def offered(sae: SAE, objective: AnyObjective, adam: Adam) -> Engine | None:
    """The quickest engine here that makes this autoencoder's step; None where only autograd does."""
    task = task_of(objective)
    if task is None or adam.clip is not None or not serves(sae):
        return None
    return SparseEngine(sae, task, adam, list(available(sae.W_enc).values())[-1])


def available(weights: Float[Tensor, "n d"] | None = None) -> dict[str, Make]:
    """The sets of kernels that serve such weights here, the quickest last. None given: float32 ones on the CPU."""
    weights = torch.empty(1, 1) if weights is None else weights
    return {"PyTorch": TorchKernels, **in_c(weights), **in_triton(weights)}


def in_c(weights: Float[Tensor, "n d"]) -> dict[str, Make]:
    """Those of the library in C, where it was built and this processor can use it."""
    from microtome.dictionaries.kernels.native import NativeKernels, can_search_bytes, reason

    if reason() or weights.device.type != "cpu" or weights.dtype != torch.float32:
        return {}
    found: dict[str, Make] = {"C": partial(NativeKernels, search="bf16")}
    if can_search_bytes(weights.shape[1]):
        found["C int8"] = partial(NativeKernels, search="int8")
    return found


def in_triton(weights: Float[Tensor, "n d"]) -> dict[str, Make]:
    """Those in Triton, on a device that runs them; its interpreter is for tests."""
    if weights.device.type != "cuda" or weights.dtype != torch.float32:
        return {}
    from microtome.dictionaries.kernels.triton_kernels import TritonKernels

    return {"Triton": TritonKernels} if TritonKernels.available(weights.device) else {}


def serves(sae: SAE) -> bool:
    """Whether the sparse engine knows every part of this autoencoder."""
    return (
        isinstance(sae.activation, TopK)
        and sae.activation.k <= len(sae)
        and isinstance(sae.normalisation, Unchanged | UnitMeanSquare)
        and isinstance(sae.constraint, UnitRows)
        and all(p.requires_grad and p.device.type in ("cpu", "cuda") for p in sae.parameters())
    )


def task_of(objective: AnyObjective) -> Task | None:
    """The objective as the sparse engine understands it, or None."""
    terms = list(flattened(objective))
    errors = [by for term, by in terms if isinstance(term, Reconstruction)]
    revivals = [(term, by) for term, by in terms if isinstance(term, AuxK)]
    if not errors or len(revivals) > 1 or len(errors) + len(revivals) < len(terms):
        return None
    return Task(sum(errors), *(revivals or [(None, 0.0)])[0])


def flattened(objective: Any, by: float = 1.0) -> Iterator[tuple[Any, float]]:
    """The terms that are added up, each with its factor."""
    if isinstance(objective, Scaled):
        yield from flattened(objective.part, by * objective.by)
    elif isinstance(objective, Sum):
        for part in objective.parts:
            yield from flattened(cast(Objective, part), by)
    else:
        yield objective, by


class SparseEngine:
    """Makes an autoencoder's steps through one set of kernels, and moves b_dec itself.

    Where the processor multiplies bfloat16 faster, candidates are looked for and dead latents revived in it; all else
    is in the precision of the weights.
    """

    def __init__(self, sae: SAE, task: Task, adam: Adam, make: Make = TorchKernels):
        self.sae, self.task, self.adam, self.steps = sae, task, adam, 0
        self.weights = Weights(sae.W_enc.detach(), sae.b_enc.detach(), sae.W_dec.detach())
        self.b_dec = sae.b_dec.detach()
        self.kernels = make(self.weights, cast(TopK, sae.activation).k)
        self.moments = {**self.kernels.moments, "b_dec": (torch.zeros_like(self.b_dec), torch.zeros_like(self.b_dec))}
        self.versions = self._versions()

    @torch.no_grad()
    def step(self, batch: Batch, lr: float) -> Mapping[str, Tensor]:
        """One step of Adam, codes and gradients as sparse as they are. Raises NotFinite."""
        self._take_notice()
        given = self.sae.gather(batch) if isinstance(batch, Rows) else cast(Tensor, batch)
        x = self.sae.normalisation(given.to(self.b_dec.dtype))
        u = x - self.b_dec
        active = self.kernels.encode(u)
        compared = self.kernels.compare(u, active)
        revived = self._revived(u, compared.error, active)
        share = self.task.by / (x - x.mean(0)).square_().sum()
        parts = self._parts(share * compared.squares, revived)
        refuse_not_finite(torch.stack(list(parts.values())).sum(), lr)
        self._move(u, compared, active, 2 * share, revived.extra if revived else None, lr)
        return parts

    def _parts(self, unexplained: Float[Tensor, ""], revived: Revived | None) -> dict[str, Tensor]:
        if self.task.aux is None:
            return {"unexplained": unexplained}
        return {"unexplained": unexplained, "auxk": revived.loss if revived else unexplained.new_zeros(())}

    def _revived(self, u: Tensor, error: Tensor, active: Active) -> Revived | None:
        aux = self.task.aux
        dead = None if aux is None else silent_after(aux, active)
        if aux is None or dead is None:
            return None
        low = fast_bfloat16(u.device) and u.dtype == torch.float32
        weight, k_aux = self.task.aux_by * aux.weight, aux.k_aux or u.shape[1] // 2
        return revive(self.weights, dead, k_aux, weight, u, -error, torch.bfloat16 if low else u.dtype)

    def _move(
        self, u: Tensor, compared: Compared, active: Active, slope: Tensor, extra: Extra | None, lr: float
    ) -> None:
        """All weights by one step of Adam; `slope` makes gradients of errors."""
        self.steps += 1
        rate = Rate(self.steps, lr, self.adam.betas, self.adam.eps)
        error = compared.error.mul_(slope)
        gradients = (slope * compared.products).mul_(active.values > 0)
        to_bias = self._to_bias(error, active, gradients, extra)  # needs W_enc as it is now
        fired = self.kernels.update(u, error, active, gradients, extra, rate)
        move(self.b_dec, to_bias, self.moments["b_dec"], rate)
        if self.task.aux is not None:
            self.task.aux.silent.add_(len(u)).masked_fill_(fired, 0)
        self.versions = self._versions()

    def _to_bias(self, error: Tensor, active: Active, gradients: Tensor, extra: Extra | None) -> Float[Tensor, "d"]:
        """What b_dec adds to the output, less what it takes from the encoder's input."""
        by_latent = total(gradients, active.indices, len(self.weights.b_enc))
        if extra is not None:
            by_latent.index_add_(0, extra.which, extra.b_enc)
        return error.sum(0) - by_latent @ self.weights.W_enc

    def _versions(self) -> tuple[int, ...]:
        return tuple(w._version for w in self.weights)

    def _take_notice(self) -> None:
        """Of weights that somebody else changed. Raises Refusal where they are no longer those it was made for."""
        if self.weights.W_enc.data_ptr() != self.sae.W_enc.data_ptr():
            raise Refusal("the dictionary was moved or cast after its fit began; make a new fit of it as it is now")
        if self._versions() != self.versions:
            self.kernels.reload()

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments, how many steps were made, and what the kernels remember of their search."""
        return {"steps": self.steps, "moments": dict(self.moments), "remembered": self.kernels.remembered()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Any set of kernels goes on from any other's. Raises Refusal for the state of another kind of engine."""
        if "moments" not in state:
            raise Refusal("this state was saved by another engine; give fit engine=Autograd, or begin anew")
        for name, pair in state["moments"].items():
            for kept, saved in zip(self.moments[name], pair, strict=True):
                kept.copy_(saved)
        self.steps = state["steps"]
        self.kernels.reload()
        self.kernels.remember(state["remembered"])


@torch.no_grad()
def silent_after(aux: AuxK, active: Active) -> Int[Tensor, "dead"] | None:
    """The latents that will be dead when this batch is counted, or None. The count itself waits until the step is."""
    dead = aux.silent + len(active.values) > aux.dead_after
    if dead.any():
        dead[active.indices[active.values > 0]] = False
    found = dead.nonzero()[:, 0]
    return found if len(found) else None
