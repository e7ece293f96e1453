"""summary.json of a dissection: how well its dictionary stands in for the activations."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.records.record import Record

Baseline = Literal["random", "pca", "neurons"]


class Figures(BaseModel):
    """How well a dictionary stands in for the activations, on held-out tokens with position 0 left out.

    explained_variance is 1 - sum |x - x̂|² / sum |x - mean|²; ce_recovered is (CE mean-ablated - CE spliced) /
    (CE mean-ablated - CE clean); l0 the mean number of active components per token; dead_fraction the share that never
    fired (in the last million training tokens for a trained dictionary, on the held-out tokens for a baseline);
    explained_fraction the share of live components whose explanation scores at least .8 balanced accuracy held out.
    """

    model_config = ConfigDict(extra="forbid")
    explained_variance: float
    l0: float
    dead_fraction: float | None = None
    ce_recovered: float | None = None
    explained_fraction: float | None = None


class Summary(Figures, Record[Literal["microtome/summary/1"]]):
    """summary.json: the figures of a dissection, each beside its baselines."""

    file: ClassVar[str] = "summary.json"
    schema_name: Literal["microtome/summary/1"] = Field(default="microtome/summary/1", alias="schema")
    model: str
    site: str
    width: int
    k: int
    tokens: int
    seconds: float
    peak_memory_bytes: int
    baselines: dict[Baseline, Figures]
