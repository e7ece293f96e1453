"""circuit.json: the parts of a network that do a task, and what is said for and against them."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.records.record import Record


class Overlap(BaseModel):
    """How much circuits share that were found on resampled pairs (Jaccard): the mean, and where 95% of them lie."""

    model_config = ConfigDict(extra="forbid")
    mean: float
    low: float
    high: float
    stable: bool


class Judged(BaseModel):
    """What is said for and against a circuit, on pairs that it was not found on.

    Faithfulness is 0 for what the network does when all of it is corrupt, 1 for what it does whole. `p` is the share of
    random circuits of the same size that are as faithful; `completeness` how differently circuit and network react to
    losing the same units, in the mean and at worst; `minimality` what the weakest units are worth, by name.
    """

    model_config = ConfigDict(extra="forbid")
    faithfulness: float
    cpr: float
    cmd: float
    random_mean: float
    random_low: float
    random_high: float
    p: float
    completeness_mean: float
    completeness_worst: float
    completeness_worst_set: list[str]
    minimality: dict[str, float]
    stability: Overlap | None


class FaithfulnessCurve(BaseModel):
    """Faithfulness of the first units, so many at a time, beside that of as many drawn at random (95% and the mean)."""

    model_config = ConfigDict(extra="forbid")
    counts: list[int]
    faithfulness: list[float]
    low: list[float]
    mean: list[float]
    high: list[float]


class Circuit(Record[Literal["microtome/circuit/1"]]):
    """circuit.json: the parts of a network that do a task, the first first, and how far they suffice.

    The circuit is the first `count` of `units`, heads and MLPs (`a0.h1`, `m0`) or edges between them
    (`a0.h1->a1.h2<q>`). A score is what the measure loses where this unit alone has the corrupt prompt; of `total`
    units those of least size are left out, if they are very many. `reached`: the fewest that do .85 of it, on the pairs
    on which the circuit was found. `whole` and `nothing`: the measure on held-out pairs, with all units and with none.
    """

    file: ClassVar[str] = "circuit.json"
    schema_name: Literal["microtome/circuit/1"] = Field(default="microtome/circuit/1", alias="schema")
    model: str
    task: str
    method: str
    kind: Literal["edges", "nodes"]
    measure: str
    training_pairs: int
    held_out_pairs: int
    example: list[str]  # a clean prompt, its corrupt one, the right answer and the wrong one
    whole: float
    nothing: float
    layers: int
    heads: int
    kv_heads: int
    total: int
    units: list[str]
    scores: list[float]
    count: int
    reached: int
    curve: FaithfulnessCurve
    judged: Judged
    seconds: float
