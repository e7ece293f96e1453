"""decomposition.json: a network's weights as parts."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.records.record import Record


class Endured(BaseModel):
    """What leaving parts out does to a network's output, as distances from its own (see `parameters.scoreboard.Score`).

    `rounded` is by threshold, `adversarial` by steps of ascent.
    """

    model_config = ConfigDict(extra="forbid")
    unmasked: float
    importance: float
    rounded: dict[float, float]
    stochastic: float
    adversarial: dict[int, float]
    nothing: float
    l0: float
    unfaithful: float


class PartedWeight(BaseModel):
    """One weight as parts, a column for each figure, row i is part i; a part that was pruned is zero in all.

    `size` is |write| |read|; `activation` the root mean square of read . x over rows; `importance` the mean over rows
    and `matters` the share of rows on which it is above .1. Directions and rows are in parts.safetensors.
    """

    model_config = ConfigDict(extra="forbid")
    name: str
    reads: int
    writes: int
    size: list[float]
    activation: list[float]
    importance: list[float]
    matters: list[float]

    @property
    def alive(self) -> int:
        """How many parts matter on some row."""
        return sum(share > 0 for share in self.matters)


class TakenApart(Record[Literal["microtome/decomposition/1"]]):
    """decomposition.json: a network's weights as parts, each with its activation and, apart from it, its importance.

    `losses` are those of every seed by the method's own measure, `kept` the seed that is here. `importance_is` says
    where importances are from. Rows have `inputs`, by name, or are tokens, and then `texts` are those that parts are
    judged on.
    """

    file: ClassVar[str] = "decomposition.json"
    schema_name: Literal["microtome/decomposition/1"] = Field(default="microtome/decomposition/1", alias="schema")
    model: str
    method: str
    settings: dict
    importance_is: str
    distance: str
    losses: list[float]
    kept: int
    rows: int
    weights: list[PartedWeight]
    endured: Endured
    inputs: list[str]
    texts: list[list[str]]
    seconds: float
