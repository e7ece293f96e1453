"""The engine of many processes: each makes its rows' and its latents' part of a step, and the step is that of one.

    shard = shard_of(sae, mesh.latent)
    for step in fit(shard, batches, Reconstruction() + AuxK(len(shard)), engine=partial(ShardedEngine, mesh=mesh)): ...

A step costs each rank one exchange of candidates, one sum of reconstructions, and along the data axis one sum of the
gradients of its own latents. Biases that all hold have gradients of a few numbers.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.core.fit import Adam, Batch, refuse_not_finite, training
from microtome.core.fit import Objective as AnyObjective
from microtome.dictionaries.activation_functions import BatchTopK
from microtome.dictionaries.coder import LinearCoder
from microtome.dictionaries.parallel.mesh import Mesh
from microtome.dictionaries.parallel.objectives import SharedAttempt, over_ranks, refuse_silence_of_others
from microtome.dictionaries.parallel.shard import divided
from microtome.dictionaries.parallel.shared_topk import SharedTopK


class ShardedEngine:
    """Makes steps together with the other ranks. Every rank is given the same batches, and takes its rows of each.

    Raises Refusal for dictionaries and terms that ranks cannot share, and RankLost where another rank is gone.
    """

    def __init__(self, learned: nn.Module, objective: AnyObjective, adam: Adam, *, mesh: Mesh):
        self.learned, self.adam, self.mesh, self.steps = refuse_undivided(learned, mesh), adam, mesh, 0
        refuse_silence_of_others(objective, len(self.learned))
        self.objective = over_ranks(objective, mesh)
        self.optimiser = torch.optim.Adam(learned.parameters(), betas=adam.betas, eps=adam.eps, fused=True)
        self.moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in learned.named_parameters()}
        self._tell_the_optimiser()

    def step(self, batch: Batch, lr: float) -> Mapping[str, Tensor]:
        """One step down the loss, its terms summed over the ranks. Raises NotFinite on every rank alike."""
        with training(self.learned):
            parts = self.objective.terms(SharedAttempt(self.learned, batch, self.mesh))
        found = {name: self.mesh.data.total(part) for name, part in parts.items()}
        refuse_not_finite(torch.stack(list(found.values())).sum(), lr)
        self.optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        self._add_gradients()
        self._clip()
        self._move(lr)
        return found

    def _add_gradients(self) -> None:
        """Over ranks with other rows. What all ranks hold is averaged over latents' ranks too, so it never drifts."""
        for name, gradient in self._gradients():
            if divided(name):
                self.mesh.data.add_(gradient)
            else:
                self.mesh.everyone.add_(gradient).div_(self.mesh.latent.size)

    def _clip(self) -> None:
        if self.adam.clip is None:
            return
        factor = (self.adam.clip / (self._norm() + 1e-6)).clamp(max=1.0)
        for _, gradient in self._gradients():
            gradient.mul_(factor)

    def _norm(self) -> Float[Tensor, ""]:
        """The norm of the gradients of all latents of all ranks."""
        squares = {name: gradient.pow(2).sum() for name, gradient in self._gradients()}
        zero = torch.zeros((), device=next(self.learned.parameters()).device)
        own = sum((s for name, s in squares.items() if divided(name)), zero)
        common = sum((s for name, s in squares.items() if not divided(name)), zero)
        return (self.mesh.latent.total(own) + common).sqrt()

    def _move(self, lr: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        self.steps += 1
        self.learned.constrain()

    def _gradients(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, p.grad) for name, p in self.learned.named_parameters() if p.grad is not None)

    def _tell_the_optimiser(self) -> None:
        for name, parameter in self.learned.named_parameters():
            first, second = self.moments[name]
            steps = torch.tensor(float(self.steps), device=parameter.device)
            self.optimiser.state[parameter] = {"step": steps, "exp_avg": first, "exp_avg_sq": second}

    def state_dict(self) -> dict[str, Any]:
        """As the engine of one process keeps it, but for its rows: those of this rank's latents."""
        return {"steps": self.steps, "moments": dict(self.moments)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises Refusal for the state of another kind of engine."""
        if "moments" not in state:
            raise Refusal("this state was saved by another engine; begin anew, or go on with that one")
        for name, pair in state["moments"].items():
            for kept, saved in zip(self.moments[name], pair, strict=True):
                kept.copy_(saved)
        self.steps = state["steps"]
        self._tell_the_optimiser()


def refuse_undivided(learned: nn.Module, mesh: Mesh) -> LinearCoder:
    """The dictionary, where it is one whose parts make what the whole would."""
    if not isinstance(learned, LinearCoder):
        raise Refusal(f"a {type(learned).__name__} is not fitted by many ranks; an SAE, Transcoder or Crosscoder is")
    asks = isinstance(learned.activation, SharedTopK) and learned.activation.group is mesh.latent
    if mesh.latent.size > 1 and not asks:
        raise Refusal("these latents are not divided over the mesh; fit shard_of(dictionary, mesh.latent)")
    if isinstance(learned.activation, BatchTopK):
        raise Refusal("BatchTopK selects among the rows of a whole batch, which ranks divide; use TopK")
    return cast(LinearCoder, learned)
