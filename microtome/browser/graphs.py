"""What a graph run and a patching run have written: graph.json and patch.json, read and checked for their pages.

graph.json follows the schema of circuit-tracer and Neuronpedia. A node's own index stands in its node_id,
"layer_index_position"; the field `feature` is a pairing of layer and index there, and is not read.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from microtome.browser.cards import finite, run_card
from microtome.browser.replies import EffectGrid, GraphLinks, GraphNode, GraphPage, NodeKind, Supernode
from microtome.browser.runs import FoundRun, NotYet
from microtome.core.errors import Refusal
from microtome.store.notes import Explanation

M = TypeVar("M", bound=BaseModel)
LONGEST_FILE = 128 * 1024**2
FEATURE_TYPES: dict[str, NodeKind] = {
    "embedding": "token", "logit": "target", "mlp reconstruction error": "error", "cross layer transcoder": "feature",
}  # fmt: skip
SCORES = ("replacement_score", "completeness_score")


class FileNode(BaseModel):
    """A node as it stands in the file; what the page has no use for is passed over."""

    node_id: str
    layer: str | int
    ctx_idx: int
    feature_type: str
    clerp: str | None = ""
    ppClerp: str | None = None  # noqa: N815 (the schema's own name)
    influence: float | None = None
    activation: float | None = None
    token_prob: float | None = None
    is_target_logit: bool = False


class FileLink(BaseModel):
    """A link as it stands in the file."""

    source: str
    target: str
    weight: float


class FileGraph(BaseModel):
    """graph.json, as far as the page reads it."""

    metadata: dict[str, Any] = {}
    qParams: dict[str, Any] = {}  # noqa: N815 (the schema's own name)
    nodes: list[FileNode]
    links: list[FileLink]


class FilePatch(BaseModel):
    """patch.json: row i of `effect` is site i, column j position j."""

    sites: list[str]
    tokens: list[str]
    effect: list[list[float | None]]
    clean: str | float | None = None
    corrupt: str | float | None = None
    measure: str = ""


Explanations = Mapping[int, tuple[str, Mapping[int, Explanation]]]  # of each layer: a run's id, what it says


def graph_page(run: FoundRun, explanations: Explanations) -> GraphPage:
    """The graph of a run. Raises NotYet where there is none, or none that can be read."""
    read = read_file(run, "graph.json", FileGraph)
    places = {node.node_id: place for place, node in reversed(list(enumerate(read.nodes)))}
    dropped, unexplored = left_out(read.metadata)
    tokens = [str(token) for token in read.metadata.get("prompt_tokens") or []]
    longest = max((node.ctx_idx for node in read.nodes), default=-1)
    return GraphPage(
        card=run_card(run),
        prompt=str(read.metadata.get("prompt") or "".join(tokens)),
        tokens=tokens + ["?"] * (longest + 1 - len(tokens)),
        nodes=[
            graph_node(node, explanations, dropped.get(node.node_id, 0.0), node.node_id not in unexplored)
            for node in read.nodes
        ],
        links=links(read.links, places, run),
        scores=stored_scores(read.metadata),
        settings=pruning_settings(read.metadata),
        interventions=dict(numbers_of(read.metadata.get("interventions"))),
        supernodes=supernodes(read.qParams, places),
        message=clash(read.nodes, places),
    )


def read_file(run: FoundRun, name: str, kind: type[M]) -> M:
    """One of the run's JSON files. Raises NotYet, in a sentence, where it cannot be shown."""
    path = run.folder / name
    if run.leads_out or not run.leads_inside(path):
        raise NotYet(run.message or f"{name} is a link that leads out of the folder, so it is not opened.")
    if not path.is_file():
        raise NotYet(run.message or f"This run has no {name}.")
    if (size := path.stat().st_size) > LONGEST_FILE:
        limit = LONGEST_FILE // 1024**2
        raise NotYet(f"{name} has {size // 1024**2} MiB, and a page shows at most {limit}; prune the graph further.")
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise NotYet(f"{name} cannot be read: {sentence(error)}. Write it again.") from error


def sentence(error: ValidationError) -> str:
    """The first fault of a file: where it is, and what."""
    fault = error.errors()[0]
    return f"{'.'.join(str(part) for part in fault['loc']) or 'the file'}: {fault['msg']}"


def left_out(metadata: Mapping[str, Any]) -> tuple[dict[str, float], set[str]]:
    """What was dropped of each node's row, and which nodes were not explored, where the file says so."""
    ends = metadata.get("unexplored")
    return dict(numbers_of(metadata.get("dropped"))), set(map(str, ends)) if isinstance(ends, list) else set()


def graph_node(node: FileNode, explanations: Explanations, dropped: float, explored: bool) -> GraphNode:
    """A node for the page, with what the dictionary of its layer says of it."""
    kind = kind_of(node)
    layer, index = layer_of(node, kind), index_of(node)
    run, said = explanations.get(layer, (None, {})) if kind == "feature" else (None, {})
    best = said.get(index) if index is not None else None
    return GraphNode(
        id=node.node_id, kind=kind, layer=layer, position=node.ctx_idx, index=index,
        label=best.text if best else node.ppClerp or node.clerp or "", run=run,
        influence=finite(node.influence), activation=finite(node.activation), probability=finite(node.token_prob),
        dropped=abs(dropped), explored=explored,
    )  # fmt: skip


def kind_of(node: FileNode) -> NodeKind:
    """What a node is; an unknown type is a component."""
    if node.is_target_logit:
        return "target"
    kind = FEATURE_TYPES.get(node.feature_type)
    return kind or ("error" if "error" in node.feature_type else "feature")


def layer_of(node: FileNode, kind: NodeKind) -> int:
    """The number of a node's layer; -1 for a token, whatever stands there."""
    text = str(node.layer)
    return int(text) if kind != "token" and text.isdecimal() else -1


def index_of(node: FileNode) -> int | None:
    """A node's own index, out of its name."""
    parts = node.node_id.split("_")
    return int(parts[1]) if len(parts) > 2 and parts[1].isdecimal() else None


def links(found: Iterable[FileLink], places: Mapping[str, int], run: FoundRun) -> GraphLinks:
    """The links as columns of node numbers. Raises NotYet where one leads to a node that is not there."""
    kept = GraphLinks(sources=[], targets=[], weights=[])
    for link in found:
        if missing := {link.source, link.target} - places.keys():
            raise NotYet(f"graph.json of {run.name} has a link to {min(missing)!r}, which is no node. Write it again.")
        if math.isfinite(link.weight) and link.weight:
            kept.sources.append(places[link.source])
            kept.targets.append(places[link.target])
            kept.weights.append(finite(link.weight) or 0.0)
    return kept


def clash(nodes: list[FileNode], places: Mapping[str, int]) -> str:
    """circuit-tracer names an error of layer l and component l of layer 0 alike, so a link may mean either."""
    twice = len(nodes) - len(places)
    return f"{twice} of the nodes share their name with another, and links go to the first." if twice else ""


def stored_scores(metadata: Mapping[str, Any]) -> dict[str, float]:
    """The scores that whoever made the graph wrote down."""
    found = {name: metadata.get(name) for name in SCORES} | dict(numbers_of(metadata.get("scores")))
    return {name.removesuffix("_score"): value for name, value in numbers_of(found)}


def pruning_settings(metadata: Mapping[str, Any]) -> dict[str, float]:
    """What whoever made the graph pruned it by."""
    outer = {name: metadata.get(name) for name in ("node_threshold", "edge_threshold")}
    return dict(numbers_of(outer)) | dict(numbers_of(metadata.get("pruning_settings")))


def numbers_of(found: object) -> list[tuple[str, float]]:
    """The numbers in a mapping, those one level deeper with both names."""
    numbers: list[tuple[str, float]] = []
    for name, value in found.items() if isinstance(found, dict) else ():
        if isinstance(value, dict):
            numbers += [(f"{inner} ({name})", number) for inner, number in numbers_of(value)]
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            numbers.append((str(name), float(value)))
    return numbers


def supernodes(query: Mapping[str, Any], places: Mapping[str, int]) -> list[Supernode]:
    """The groups that are stored with the graph: each is a list of a name and then node ids."""
    stored = query.get("supernodes")
    lists = [one for one in stored if isinstance(one, list) and len(one) > 1] if isinstance(stored, list) else []
    return [Supernode(name=str(one[0]), nodes=[id for id in one[1:] if id in places]) for one in lists]


def exported(run: FoundRun, groups: str, pinned: str) -> dict[str, Any]:
    """graph.json as it is, with these groups as its supernodes and this node pinned: for Neuronpedia, or to keep.

    `groups` is JSON, [["name", "node id", ...], ...]. Raises NotYet as `graph_page` does, Refusal for other groups.
    """
    names = {node.node_id for node in read_file(run, "graph.json", FileGraph).nodes}
    held = json.loads((run.folder / "graph.json").read_bytes())
    lists = [[one[0], *(id for id in one[1:] if id in names)] for one in groups_of(groups)]
    held["qParams"] = (held.get("qParams") or {}) | {"supernodes": [one for one in lists if len(one) > 1]}
    held["qParams"]["pinnedIds"] = [pinned] if pinned in names else []
    return held


def groups_of(text: str) -> list[list[str]]:
    """Groups as the page sends them. Raises Refusal for anything else."""
    try:
        return TypeAdapter(list[Annotated[list[str], Field(min_length=1)]]).validate_json(text)
    except ValidationError as error:
        raise Refusal(f"these groups cannot be read ({sentence(error)}); give lists of a name and node ids") from error


def explanations_beside(run: FoundRun, others: Iterable[FoundRun]) -> dict[int, tuple[str, Mapping[int, Explanation]]]:
    """The best explanation of each component, by layer, from the dictionary runs that this run says it used.

    A run is used if an argument in run.json names its folder or its dictionary. Two of one layer would be ambiguous,
    so then neither is taken.
    """
    named = named_folders(run)
    found: dict[int, list[FoundRun]] = {}
    for other in others:
        layer = other.run.site.rpartition(".")[2] if other.run else ""
        notes = other.folder / "catalog" / "notes.sqlite"
        if other.has_catalog and notes.is_file() and layer.isdecimal() and named & folders_of(other):
            found.setdefault(int(layer), []).append(other)
    single = {layer: runs[0] for layer, runs in found.items() if len(runs) == 1}
    return {layer: (one.id, one.best_explanations()) for layer, one in single.items()}


def folders_of(run: FoundRun) -> set[Path]:
    """The folders by which another run may name this one."""
    return {run.folder.resolve(), (run.folder / "dictionary").resolve()}


def named_folders(run: FoundRun) -> set[Path]:
    """Every folder that the run's arguments could mean: as it stands, and as seen from the folder being browsed."""
    asked = strings(run.run.arguments) if run.run else []
    starts = (Path.cwd(), run.root, run.root.parent, run.folder.parent)
    return {(start / text).resolve() for text in asked for start in starts if len(text) < 1000 and "\0" not in text}


def strings(value: object) -> list[str]:
    """Every text in a value of JSON."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in strings(one)]


def effect_grid(run: FoundRun) -> EffectGrid:
    """The grid of a patching run. Raises NotYet where there is none, or its rows do not fit its sites and tokens."""
    read = read_file(run, "patch.json", FilePatch)
    wide = {len(row) for row in read.effect}
    if len(read.effect) != len(read.sites) or wide - {len(read.tokens)}:
        shape = f"{len(read.effect)} rows of {', '.join(map(str, sorted(wide))) or 'no'} cells"
        raise NotYet(
            f"patch.json has {shape} for {len(read.sites)} sites and {len(read.tokens)} tokens. Write it again."
        )
    return EffectGrid(
        card=run_card(run), sites=read.sites, tokens=read.tokens,
        effect=[[finite(value) for value in row] for row in read.effect],
        clean=told(read.clean), corrupt=told(read.corrupt), measure=read.measure,
    )  # fmt: skip


def told(value: str | float | None) -> str:
    """A text as it is, a number as it is written."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(finite(value))
