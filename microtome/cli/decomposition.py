"""What is told of the parts of weights: how active, how important, on which rows, and beside which others."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.parameters.apd import APD, attributions, matrices, most_attributed, of_parts
from microtome.parameters.decompose import Decomposition, Method
from microtome.parameters.objectives import Distance
from microtome.parameters.scoreboard import FIRM, Score, scoreboard
from microtome.store.records import Endured, PartedWeight
from microtome.store.tensors import write_tensors

SHOWN = 6  # rows for each part
NEAR = 8  # partners of each part
MOST = 20_000_000  # numbers in one table of parts against parts


@dataclass(frozen=True)
class Seen:
    """The parts of one weight, on rows: `row` is a row of inputs, or a token of one.

    A part of a higher rank is shown by the strongest of its directions, and active as much as it moves the output.
    """

    name: str
    read: Float[Tensor, "parts d_in"]
    write: Float[Tensor, "parts d_out"]
    activation: Float[Tensor, "rows parts"]
    importance: Float[Tensor, "rows parts"]

    @property
    def matters(self) -> Bool[Tensor, "rows parts"]:
        return self.importance > FIRM

    def told(self) -> PartedWeight:
        """The figures of every part."""
        columns = {
            "size": self.read.norm(dim=1) * self.write.norm(dim=1), "activation": self.activation.pow(2).mean(0).sqrt(),
            "importance": self.importance.mean(0), "matters": self.matters.float().mean(0),
        }  # fmt: skip
        given = {name: [float(f"{v:.6g}") for v in column.tolist()] for name, column in columns.items()}
        return PartedWeight(name=self.name, reads=self.read.shape[1], writes=self.write.shape[1], **given)

    def examples(self) -> Int[Tensor, "parts shown"]:
        """The rows on which each part matters most, and of those alike where it is most active; -1 where none is left.

        What is nowhere important has none.
        """
        most = self.activation.abs().amax(0).clamp(min=1e-12)
        order = (self.importance + 1e-3 * self.activation.abs() / most).topk(min(SHOWN, len(self.importance)), 0)
        rows = torch.where(self.matters.gather(0, order.indices), order.indices, -1)
        return torch.nn.functional.pad(rows.T, (0, SHOWN - rows.shape[0]), value=-1)


# ---------------------------------------------------------------- what each method says


def seen(found: Decomposition, method: Method, x: Tensor, k: float | None = None) -> list[Seen]:
    """The parts of every weight on these rows, importances as the method has them (see `meaning`)."""
    if isinstance(method, APD):
        return seen_by_attribution(found, method, x, method.k if k is None else k)
    look = found.parts.look(x)
    activation = {name: rows_of(h) for name, h in look.activation.items()}
    gates = {name: rows_of(g) for name, g in look.importance.items()}
    made: list[Seen] = []
    for place, name in enumerate(found.parts.names):
        factors = found.parts.of(place)
        importance = gates.get(name, torch.ones_like(activation[name]))
        made.append(Seen(name, factors.read.detach(), factors.write.detach(), activation[name].detach(), importance))
    return made


def seen_by_attribution(found: Decomposition, method: APD, x: Tensor, k: float) -> list[Seen]:
    """Parts that span all weights: each is important in all of them or in none."""
    attribution = attributions(found.parts, x, method.parts, method.of_parts)
    used, moved = most_attributed(attribution, k), attribution.sqrt()
    made: list[Seen] = []
    for place, name in enumerate(found.parts.names):
        left, sizes, right = torch.linalg.svd(matrices(found.parts, place, method.parts).detach(), full_matrices=False)
        made.append(Seen(name, right[:, 0], left[..., 0] * sizes[:, :1], moved, used))
    return made


def meaning(method: Method) -> str:
    """Where a method's importances are from, in a sentence."""
    if isinstance(method, APD):
        return f"1 for parts among the {method.k:g} of a row with the largest attributions, on average, else 0"
    return "learnt by gates, between 0 and 1" if method.steps else "1 for every part: no data was looked at"


def rows_of(x: Tensor) -> Float[Tensor, "rows parts"]:
    return x.detach().flatten(0, -2)


# ---------------------------------------------------------------- all parts together


def endured(
    found: Decomposition, method: Method, parts: list[Seen], x: Tensor, distance: Distance, curve: tuple[int, ...],
    generator: torch.Generator,
) -> Endured:  # fmt: skip
    """The scoreboard, by the importances that `seen` has. An active part counts once, whatever its rank."""
    importance = None if found.parts.gates else as_masks(found, method, parts, x)
    score: Score = scoreboard(
        found.parts, x, generator=generator, distance=distance, curve=curve, importance=importance
    )
    counted = parts[:1] if isinstance(method, APD) else parts
    return Endured(
        unmasked=score.whole, importance=score.importance, rounded=score.rounded, stochastic=score.stochastic,
        adversarial=score.adversarial, nothing=score.nothing, unfaithful=score.unfaithful,
        l0=sum(float(one.matters.float().sum(1).mean()) for one in counted),
    )  # fmt: skip


def as_masks(found: Decomposition, method: Method, parts: list[Seen], x: Tensor) -> dict[str, Tensor]:
    """Importances in the shape of masks: of every rank of a part, at every position."""
    if isinstance(method, APD):
        return of_parts(found.parts, parts[0].importance).parts
    activation = found.parts.look(x).activation
    return {name: torch.ones_like(h).detach() for name, h in activation.items()}


def partners(parts: list[Seen]) -> tuple[Int[Tensor, "all near"], Float[Tensor, "all near"]]:
    """For every part of all weights, in order, those that matter on the same rows, nearest first, and how far.

    Nearness is the share of the rows on which either matters that both do (Jaccard); -1 where there are no more.
    """
    on = torch.cat([one.matters for one in parts], 1).float()
    refuse_many(on.shape[1])
    both, count = on.T @ on, on.sum(0)
    near = both / (count[:, None] + count - both).clamp(min=1)
    near.fill_diagonal_(0)
    best = near.topk(min(NEAR, near.shape[1]), 1)
    spare = (0, NEAR - best.values.shape[1])
    pad = torch.nn.functional.pad
    return pad(torch.where(best.values > 0, best.indices, -1), spare, value=-1), pad(best.values, spare)


def refuse_many(parts: int) -> None:
    if parts**2 > MOST:
        raise Refusal(
            f"{parts:,} parts are {parts**2:,} pairs; choose fewer, at most {int(MOST**0.5):,} over all --sites"
        )


@torch.no_grad()
def alone(found: Decomposition, entries: int, size: float) -> dict[str, Float[Tensor, "entries parts"]]:
    """How important every part is where one entry of the input is on by itself, by weight; empty without gates."""
    return {n: rows_of(g) for n, g in found.parts.look(size * torch.eye(entries)).importance.items()}


def write_parts(path: Path, parts: list[Seen], rows: Tensor | None, by_entry: dict[str, Tensor]) -> None:
    """parts.safetensors: for each weight `read`, `write`, `example` (rows), their activation and importance, `alone`.

    `partner` and `together` are of all parts in order, `rows` the inputs, unless they are text.
    """
    held: dict[str, Tensor] = {}
    for one in parts:
        rows_shown = one.examples()
        at = rows_shown.clamp(min=0).T
        for name, table in (("activation", one.activation), ("importance", one.importance)):
            held[f"{one.name}/example_{name}"] = table.gather(0, at).T
        held |= {f"{one.name}/read": one.read, f"{one.name}/write": one.write, f"{one.name}/example": rows_shown}
    held |= {f"{name}/alone": table.T for name, table in by_entry.items()}
    held["partner"], held["together"] = partners(parts)
    if rows is not None:
        held["rows"] = rows.float()
    write_tensors(path, held)
