"""comparison.json: the components of one dictionary beside those of another."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.records.record import Record


class Compared(BaseModel):
    """One of the two. `said` is the best sentence about each component, None where there is none."""

    model_config = ConfigDict(extra="forbid")
    name: str
    model: str
    site: str
    density: list[float]
    said: list[str | None]


class Alike(BaseModel):
    """For each component of the first dictionary its nearest in the second, and how near it is, from -1 to 1.

    -1 stands for none. `mutual` says whether each is the other's nearest. `chance` is the level that one nearest in a
    hundred reaches by chance, where chance can be told; `shared` the share of the first's live components that are
    mutual and at `least` or nearer, `shared_by_chance` the same by chance.
    """

    model_config = ConfigDict(extra="forbid")
    partner: list[int]
    nearness: list[float]
    mutual: list[bool]
    least: float
    shared: float
    chance: float | None = None
    shared_by_chance: float | None = None


class Comparison(Record[Literal["microtome/comparison/1"]]):
    """comparison.json: which component of one dictionary is which of another.

    `written` goes by the cosine of what they write, chance being the second's directions turned at random; `active` by
    the correlation of their activations on the same text. Of one dictionary with itself: its near duplicates.
    """

    file: ClassVar[str] = "comparison.json"
    schema_name: Literal["microtome/comparison/1"] = Field(default="microtome/comparison/1", alias="schema")
    first: Compared
    second: Compared
    written: Alike | None
    active: Alike | None
    notes: list[str]
    seconds: float
