"""run.json: what was asked of a command, and how far it came."""

from typing import ClassVar, Literal

from pydantic import Field

from microtome.store.records.record import Record

Stage = Literal["load", "harvest", "fit", "catalog", "explain", "measure", "done"]


class Run(Record[Literal["microtome/run/1"]]):
    """run.json: what was asked and how far it came. `stage` is the stage to do next."""

    file: ClassVar[str] = "run.json"
    schema_name: Literal["microtome/run/1"] = Field(default="microtome/run/1", alias="schema")
    command: str
    arguments: dict
    model: str
    site: str
    created: str  # ISO 8601, UTC
    version: str
    stage: Stage = "load"
    seconds: float = 0.0  # spent so far, over all sittings
