"""check.json: whether each site of a model is what its name says."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.records.record import Record


class CheckedSite(BaseModel):
    """One site of a model, as measured on two short rows, whose shape is given.

    `error` is the largest of all that was measured there, at the worst token, relative to the scale of what is summed;
    None where nothing of the kind was. `identity` is an equation that binds the site to its neighbours, or the one that
    failed; `reason` says how it failed, and so why the site is withdrawn.
    """

    model_config = ConfigDict(extra="forbid")
    site: str
    shape: list[int]
    identity: str
    error: float | None
    ok: bool
    reason: str = ""


class Checked(Record[Literal["microtome/check/1"]]):
    """check.json: whether each site of a model is what its name says. `lacking` is what the family cannot offer."""

    file: ClassVar[str] = "check.json"
    schema_name: Literal["microtome/check/1"] = Field(default="microtome/check/1", alias="schema")
    model: str
    family: str
    ok: bool
    sites: list[CheckedSite]
    lacking: dict[str, str]
