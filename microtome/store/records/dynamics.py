"""dynamics.json: how a network came to be, as numbers at its checkpoints."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.records.record import Record


class Stretch(BaseModel):
    """A phase: from one step to another, the last included."""

    model_config = ConfigDict(extra="forbid")
    name: str
    first: int
    last: int


class Dynamics(Record[Literal["microtome/dynamics/1"]]):
    """dynamics.json: how a network came to be, as numbers at each of its checkpoints; None where there is no number.

    A curve `spectrum/3` is member 3 of the profile `spectrum`, which is drawn whole at one step. `units` are by curve
    or profile.
    """

    file: ClassVar[str] = "dynamics.json"
    schema_name: Literal["microtome/dynamics/1"] = Field(default="microtome/dynamics/1", alias="schema")
    model: str
    about: str
    steps: list[int]
    curves: dict[str, list[float | None]]
    units: dict[str, str]
    phases: list[Stretch]
    arguments: dict
    seconds: float
    version: str
