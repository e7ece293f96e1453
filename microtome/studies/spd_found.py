"""What a decomposition of a toy of superposition found, in plain numbers that can be kept between sessions.

One network is taken apart from several beginnings. Which is kept is decided by the loss that each has of its own, on
fresh rows; how near each is to the truth is looked at afterwards, and published for all.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from microtome.parameters.decompose import Decomposition, decompose_each
from microtome.parameters.matching import Columns, alive, columns, identity_error, one_hot
from microtome.parameters.source import Source
from microtome.parameters.spd import SPD
from microtome.toys import Superposition


@dataclass(frozen=True)
class Found:
    """One decomposition of one network: columns of both weights, errors of importance, parts that matter, its own loss.

    `importance` is that of the encoder's parts, one feature at a time: (feature, part).
    """

    encoder: Columns
    decoder: Columns
    errors: dict[str, int]
    alive: dict[str, int]
    importance: list[list[float]]
    loss: float

    @property
    def solved(self) -> bool:
        """Every column of both weights, the encoder's lengths, a part a feature, no error of importance in either."""
        features = len(self.importance)
        whole = self.encoder.solved and self.decoder.worst < 0.1
        counted = all(self.alive[name] == features for name in ("encoder", "decoder"))
        return whole and counted and not self.errors["encoder"] and not self.errors["decoder"]

    @classmethod
    @torch.no_grad()
    def of(cls, one: Decomposition) -> "Found":
        weights = dict(zip(one.parts.names, one.parts.weights(), strict=True))
        features = weights["encoder"].shape[1]
        g = one.parts.look(one_hot(features).to(weights["encoder"])).importance
        encoder = columns(one.at("encoder").matrices(), weights["encoder"])
        decoder = columns(one.at("decoder").matrices().mT, weights["decoder"].mT)
        errors = {name: identity_error(g[name]) for name in ("encoder", "decoder")}
        matter = {name: alive(g[name]) for name in g}
        return cls(encoder, decoder, errors, matter, g["encoder"].tolist(), one.losses[one.kept])

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> "Found":
        """From what `asdict` made of it."""
        both: dict[str, Any] = {name: columns_of(plain[name]) for name in ("encoder", "decoder")}
        return cls(**(dict(plain) | both))


def columns_of(plain: Mapping[str, Any]) -> Columns:
    """JSON knows lists alone."""
    return Columns(plain["mmcs"], plain["ml2r"], tuple(plain["error"]))


class Apart(NamedTuple):
    """Networks of one shape, each taken apart several times. `seconds`: of the process, for all of them together."""

    each: list[list[Found]]  # network, then beginning
    seconds: float

    @property
    def chosen(self) -> list[Found]:
        """Of each network's decompositions the one with the least loss of its own."""
        return [min(several, key=lambda f: f.loss) for several in self.each]

    @property
    def all(self) -> list[Found]:
        return [f for several in self.each for f in several]

    def plain(self) -> dict[str, Any]:
        return {"each": [[asdict(f) for f in several] for several in self.each], "seconds": self.seconds}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> "Apart":
        return cls([[Found.read(f) for f in several] for several in plain["each"]], plain["seconds"])


def taken_apart(
    toy: Superposition, data: Source, method: SPD, restarts: int, seed: int, tell: Callable[[int], None]
) -> Apart:
    """All networks of a toy, from so many beginnings each, in one program."""
    assert toy.seeds is not None
    sites = ["encoder", "decoder"] if toy.between is None else ["encoder", "between", "decoder"]

    def repeated(weight: Tensor) -> Tensor:
        return weight.repeat_interleave(restarts, 0)

    many = toy.some(repeated, toy.seeds * restarts)
    begun = time.process_time()
    made = decompose_each(many, data, sites, method=method, seeds=1, seed=seed, tell=tell)
    seconds = time.process_time() - begun
    found = [Found.of(one) for one in made]
    return Apart([found[i : i + restarts] for i in range(0, len(found), restarts)], seconds)


def share(of: list[Found], holds: Callable[[Found], bool]) -> float:
    return sum(map(holds, of)) / len(of)


def mean(of: list[Found], number: Callable[[Found], float]) -> float:
    return sum(map(number, of)) / len(of)
