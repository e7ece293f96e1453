"""The JSON that runs are made of, as pydantic models: each file names its schema and is refused if it has another.

A run folder holds run.json (what was asked, how far it came), summary.json (the figures), training.jsonl (one line per
logged step), dictionary/ and catalog/. check.json is what `microtome check` found on a model, result.json what a study
claims and found.
"""

from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.whole import whole

R = TypeVar("R", bound="Record[Any]")
Name = TypeVar("Name", bound=str)


class Record(BaseModel, Generic[Name]):
    """A JSON file with a schema name. Unknown keys are refused: a misspelt one is never silently dropped."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    schema_name: Name = Field(alias="schema")
    file: ClassVar[str]

    def write(self, folder: Path) -> None:
        """Write atomically: a reader sees the old file or the new one, never half of one."""
        folder.mkdir(parents=True, exist_ok=True)
        with whole(folder / self.file) as path:
            path.write_text(self.model_dump_json(indent=2, by_alias=True))

    @classmethod
    def read(cls: type[R], folder: Path) -> R:
        """Raises pydantic's ValidationError where the file is not such a record."""
        return cls.model_validate_json((folder / cls.file).read_bytes())


Baseline = Literal["random", "pca", "neurons"]
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
        return all(claim.ok for claim in self.claims)


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
