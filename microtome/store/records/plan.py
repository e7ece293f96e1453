"""plan.json: what a harvest and its training are estimated to need."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.records.record import Record


class Estimate(BaseModel):
    """One number, and how it was come by."""

    model_config = ConfigDict(extra="forbid")
    name: str
    amount: float
    unit: Literal["hours", "bytes"]
    how: str


class Plan(Record[Literal["microtome/plan/1"]]):
    """plan.json: what a harvest and its training are estimated to need on one machine."""

    file: ClassVar[str] = "plan.json"
    schema_name: Literal["microtome/plan/1"] = Field(default="microtome/plan/1", alias="schema")
    model: str
    site: str
    d: int
    tokens: int
    width: int
    k: int
    dictionaries: int
    stored: str
    epochs: int
    estimates: list[Estimate]
