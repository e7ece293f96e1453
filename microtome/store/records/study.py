"""result.json: what a study claims, and what it found."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.records.record import Record


class Claim(BaseModel):
    """One thing that a study claims, and what it found.

    `expected` is a number, from which `found` may differ by `tolerance`, or a bound in words, such as "at most 0.05",
    with tolerance 0. `found` is None where no finite number came out, and then the claim fails. `source` says where
    the expectation is from.
    """

    model_config = ConfigDict(extra="forbid")
    name: str
    expected: float | str
    tolerance: float
    found: float | None
    ok: bool
    source: str


class Result(Record[Literal["microtome/result/1"]]):
    """result.json: the claims of a study, each with what was expected and what was found."""

    file: ClassVar[str] = "result.json"
    schema_name: Literal["microtome/result/1"] = Field(default="microtome/result/1", alias="schema")
    study: str
    paper: str
    seconds: float
    claims: list[Claim]
    arguments: dict
    version: str

    @property
    def ok(self) -> bool:
        """Whether every claim holds."""
        return all(claim.ok for claim in self.claims)
