"""card.json: what was measured of a dictionary, beside what it must beat."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.records.record import Record

Group = Literal["reconstruction", "activity", "faithfulness", "probing", "absorption", "biases", "structure"]
Best = Literal["high", "low", "one", "none"]


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
    best: Best
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
