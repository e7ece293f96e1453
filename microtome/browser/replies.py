"""What the server answers, as pydantic models: the OpenAPI description and the page's types follow from them.

Components travel as columns, tokens as ids into the run's vocabulary, and activations as (place, value) pairs, because
most places are silent.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from microtome.browser.runs import Shows
from microtome.store.records import Stage, Summary


class RunCard(BaseModel):
    """One run in the list. `shows` is its page; `message` says what is wrong, and is empty where nothing is."""

    id: str
    name: str
    model: str
    site: str
    command: str
    created: str
    arguments: dict
    stage: Stage | None
    state: Literal["done", "unfinished", "unreadable"]
    message: str
    shows: Shows
    components: int | None
    explained: int
    summary: Summary | None


class RunList(BaseModel):
    folder: str
    runs: list[RunCard]


class Curve(BaseModel):
    """The training log as columns of equal length; null where a step did not log a figure."""

    steps: list[int]
    columns: dict[str, list[float | None]]


class RunPage(BaseModel):
    """One run. `catalog` names the state of its catalogue: it changes whenever the catalogue is written anew."""

    card: RunCard
    training: Curve
    text: str
    documents: int
    context: int
    tokens_seen: int
    catalog: str


class Components(BaseModel):
    """Every component of a run, a column for each figure; row i is component i. `peak` is its strongest token's id."""

    density: list[float]
    max: list[float]
    mean: list[float]
    score: list[float | None]
    explanation: list[str | None]
    peak: list[int | None]
    x: list[float | None]
    y: list[float | None]


class Said(BaseModel):
    """An explanation, with how well it holds on held-out text (see microtome.store.notes.Explanation)."""

    method: str
    text: str
    score: float | None
    low: float | None
    high: float | None
    chance: float | None
    baseline: float | None
    positives: int
    negatives: int
    evidence: dict


class Shown(BaseModel):
    """One window. `at` are the places of its tokens where the component fires, `values` how strongly."""

    window: int
    position: int
    document: str
    tokens: list[int]
    at: list[int]
    values: list[float]


class Group(BaseModel):
    name: str
    examples: list[Shown]


class Logit(BaseModel):
    token: int
    value: float | None


class Neighbour(BaseModel):
    component: int
    cosine: float | None
    explanation: str | None
    score: float | None


class ComponentCard(BaseModel):
    """All that is known of one component. `histogram` counts its activations in equal bins of 0..histogram_end."""

    component: int
    count: int
    density: float
    max: float
    mean: float
    histogram: list[int]
    histogram_end: float
    explanations: list[Said]
    groups: list[Group]
    promoted: list[Logit]
    suppressed: list[Logit]
    neighbours: list[Neighbour]


class Found(BaseModel):
    """Components that answer a search, best first.

    `weight` is how many exemplars peak on a token, or how active a component is on a passage.
    """

    components: list[int]
    weight: list[float]
    total: int


NodeKind = Literal["feature", "error", "token", "target"]


class GraphNode(BaseModel):
    """One node. `influence` is the share of all influence that this node and those with more have, so the least is
    the most important; None where the file has none. `run` is the dictionary run in which the component has a page.
    `dropped` is the magnitude that was left out of its row before the file was written, `explored` whether its own
    sources were worked out at all.
    """

    id: str
    kind: NodeKind
    layer: int
    position: int
    index: int | None
    label: str
    run: str | None
    influence: float | None
    activation: float | None
    probability: float | None
    dropped: float
    explored: bool


class GraphLinks(BaseModel):
    """Links as columns; sources and targets are places in the list of nodes."""

    sources: list[int]
    targets: list[int]
    weights: list[float]


class Supernode(BaseModel):
    """Nodes, by id, that somebody grouped under a name."""

    name: str
    nodes: list[str]


class GraphPage(BaseModel):
    """An attribution graph. `scores`, `settings` and `interventions` are what whoever made it wrote down.

    A score's name says in brackets of what it is, where the file does: the whole graph or what was kept of it.
    """

    card: RunCard
    prompt: str
    tokens: list[str]
    nodes: list[GraphNode]
    links: GraphLinks
    scores: dict[str, float]
    settings: dict[str, float]
    interventions: dict[str, float]
    supernodes: list[Supernode]
    message: str


class EffectGrid(BaseModel):
    """What patching one site at one position does to a measure: row i of `effect` is site i, column j token j."""

    card: RunCard
    sites: list[str]
    tokens: list[str]
    effect: list[list[float | None]]
    clean: str
    corrupt: str
    measure: str


class Question(BaseModel):
    """Text to run the model on, and optionally the one component to watch."""

    text: str
    component: int | None = Field(None, ge=0)


class Fired(BaseModel):
    """What fired on a text: row t of `components` and `values` belongs to `tokens[t]`, strongest first."""

    tokens: list[str]
    components: list[list[int]]
    values: list[list[float]]


class Intervention(BaseModel):
    """A change of some nodes of a graph, by how much each is multiplied, and the nodes to watch under it.

    `hold_attention` keeps attention as it was on the prompt, as the graph takes it.
    """

    changes: dict[str, Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]] = Field(
        min_length=1, max_length=500
    )
    watch: list[str] = Field(max_length=20_000)
    hold_attention: bool = True


class MovedNodes(BaseModel):
    """What some nodes did, as columns (see microtome.core.session.Moved); null is a number too large to be told."""

    nodes: list[str]
    before: list[float | None]
    predicted: list[float | None]
    measured: list[float | None]
    pearson: float | None
    spearman: float | None


class Intervened(BaseModel):
    targets: MovedNodes
    components: MovedNodes


class SessionState(BaseModel):
    """Whether the model of a run is ready to be asked."""

    state: Literal["asleep", "loading", "ready", "failed"]
    message: str


class Problem(BaseModel):
    """Every error: one sentence with the remedy."""

    detail: str
