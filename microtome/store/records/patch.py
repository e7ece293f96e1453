"""patch.json: what each of a grid of patches does to a measure."""

from typing import ClassVar, Literal

from pydantic import Field

from microtome.store.records.record import Record


class Patched(Record[Literal["microtome/patch/1"]]):
    """patch.json: a grid of patches, one for each layer and position.

    `share` is how far each patch went from the value it started at (0) to that of the other prompt (1).
    """

    file: ClassVar[str] = "patch.json"
    schema_name: Literal["microtome/patch/1"] = Field(default="microtome/patch/1", alias="schema")
    model: str
    site: str
    direction: Literal["denoise", "noise"]
    clean: str
    corrupt: str
    right: str
    wrong: str
    clean_value: float  # logit of right minus logit of wrong after the clean prompt
    corrupt_value: float
    measure: str
    sites: list[str]
    tokens: list[str]  # of the prompt that was patched, one for each position
    effect: list[list[float]]  # by site, then position: the gain in the measure
    share: list[list[float]]
