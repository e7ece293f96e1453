"""The JSON that runs are made of, as pydantic models: each file names its schema and is refused if it has another.

A run folder holds run.json (what was asked, how far it came), summary.json (the figures), training.jsonl (one line per
logged step), dictionary/ and catalog/. check.json is what `microtome check` found on a model, result.json what a study
claims and found, card.json what `microtome eval` measured of a dictionary.
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


Group = Literal["reconstruction", "activity", "faithfulness", "probing", "absorption", "biases", "structure"]


class Scored(BaseModel):
    """A score with its 95% interval over documents; None where there is no number, or no interval can be told.

    `fits` is the same score averaged over dictionaries fitted from several seeds, where these were given, with its 95%
    interval over seeds.
    """

    model_config = ConfigDict(extra="forbid")
    found: float | None
    low: float | None = None
    high: float | None = None
    fits: "Scored | None" = None


class CardRow(BaseModel):
    """One score of a dictionary and, where it can be taken of them, of each baseline, by the same procedure.

    `about` says what is measured, in one sentence, with units; `best` in which direction is better, if there is one.
    """

    model_config = ConfigDict(extra="forbid")
    name: str
    group: Group
    about: str
    best: Literal["high", "low", "one", "none"]
    scores: dict[str, Scored]


class Fact(BaseModel):
    """One label of tokens, and how well it is told on held-out documents, in F1.

    `component`, `sign` and `threshold` are the best detector on training text, and `scores` hold the F1 of the best
    detector of each dictionary. `chance` is what claiming every token scores, `linear` a logistic regression on the
    activations. `tokens` are the held-out tokens that have the label.
    """

    model_config = ConfigDict(extra="forbid")
    name: str
    tokens: int
    component: int
    sign: int
    threshold: float
    scores: dict[str, Scored]
    chance: Scored
    linear: Scored


class Card(Record[Literal["microtome/card/1"]]):
    """card.json: everything that was measured of one dictionary, beside the same of what it must beat.

    Columns of `scores` are `own` and the names in `baselines`, which says what each is. `notes` are what was left out,
    and why. Written anew after every stage; `stage` is "done" at the end.
    """

    file: ClassVar[str] = "card.json"
    schema_name: Literal["microtome/card/1"] = Field(default="microtome/card/1", alias="schema")
    dictionary: str
    model: str
    site: str
    width: int
    baselines: dict[str, str]
    training_tokens: int
    held_out_tokens: int
    documents: int
    stage: str
    seconds: float
    processor_seconds: float
    peak_memory_bytes: int
    rows: list[CardRow]
    facts: list[Fact]
    notes: list[str]


class Endured(BaseModel):
    """What leaving parts out does to a network's output, as distances from its own (see `parameters.scoreboard.Score`).

    `rounded` is by threshold, `adversarial` by steps of ascent.
    """

    model_config = ConfigDict(extra="forbid")
    unmasked: float
    importance: float
    rounded: dict[float, float]
    stochastic: float
    adversarial: dict[int, float]
    nothing: float
    l0: float
    unfaithful: float


class PartedWeight(BaseModel):
    """One weight as parts, a column for each figure, row i is part i; a part that was pruned is zero in all.

    `size` is |write| |read|; `activation` the root mean square of read . x over rows; `importance` the mean over rows
    and `matters` the share of rows on which it is above .1. Directions and rows are in parts.safetensors.
    """

    model_config = ConfigDict(extra="forbid")
    name: str
    reads: int
    writes: int
    size: list[float]
    activation: list[float]
    importance: list[float]
    matters: list[float]

    @property
    def alive(self) -> int:
        return sum(share > 0 for share in self.matters)


class TakenApart(Record[Literal["microtome/decomposition/1"]]):
    """decomposition.json: a network's weights as parts, each with its activation and, apart from it, its importance.

    `losses` are those of every seed by the method's own measure, `kept` the seed that is here. `importance_is` says
    where importances are from. Rows have `inputs`, by name, or are tokens, and then `texts` are those that parts are
    judged on.
    """

    file: ClassVar[str] = "decomposition.json"
    schema_name: Literal["microtome/decomposition/1"] = Field(default="microtome/decomposition/1", alias="schema")
    model: str
    method: str
    settings: dict
    importance_is: str
    distance: str
    losses: list[float]
    kept: int
    rows: int
    weights: list[PartedWeight]
    endured: Endured
    inputs: list[str]
    texts: list[list[str]]
    seconds: float


class Stretch(BaseModel):
    """A phase: from one step to another, the last included."""

    model_config = ConfigDict(extra="forbid")
    name: str
    first: int
    last: int


class Dynamics(Record[Literal["microtome/dynamics/1"]]):
    """dynamics.json: how a network came to be, as numbers at each of its checkpoints; None where there is no number.

    A curve `spectrum/3` is member 3 of the profile `spectrum`, which is drawn whole at one step. `units` are by curve
    or profile.
    """

    file: ClassVar[str] = "dynamics.json"
    schema_name: Literal["microtome/dynamics/1"] = Field(default="microtome/dynamics/1", alias="schema")
    model: str
    about: str
    steps: list[int]
    curves: dict[str, list[float | None]]
    units: dict[str, str]
    phases: list[Stretch]
    arguments: dict
    seconds: float
    version: str


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
