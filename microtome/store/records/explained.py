"""explained.json: how many components have a sentence, and how well the sentences score."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.records.record import Record


class Scores(BaseModel):
    """One scorer over all explained components: the median and the mean, and what chance gives."""

    model_config = ConfigDict(extra="forbid")
    median: float
    mean: float
    chance: float
    components: int


class Spent(BaseModel):
    """What was asked: questions now and those whose answers were kept from before, and tokens."""

    model_config = ConfigDict(extra="forbid")
    requests: int
    recalled: int
    prompt_tokens: int
    answer_tokens: int


class Explained(Record[Literal["microtome/explained/1"]]):
    """explained.json. `left_out` counts components by the reason why they have no sentence.

    `stopped` says why the work ended before its end, and is empty where it did not; the same command then goes on.
    """

    file: ClassVar[str] = "explained.json"
    schema_name: Literal["microtome/explained/1"] = Field(default="microtome/explained/1", alias="schema")
    method: str
    asked: int
    explained: int
    left_out: dict[str, int]
    scores: dict[str, Scores]
    spent: Spent | None
    stopped: str
    seconds: float
