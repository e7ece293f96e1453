"""Which parts of a small story model choose he or she, and do three ways of finding them agree?

The model is stories260k (karpathy/tinyllamas), a Llama of 260 thousand weights that tells stories. The prompts come in
pairs that differ in a name: "Lily went to the park." and "Tim went to the park." Exact patching puts one node's corrupt
output into the clean run; integrated gradients (Hanna et al. 2024, Have Faith in Faithfulness, arXiv 2403.17806)
estimate all of them at once; a search (Conmy et al. 2023, ACDC, arXiv 2304.14997) leaves out one after the other, from
the last on, and keeps what cannot be missed from what is then left. The folder of model and prompts is what the
environment variable MICROTOME_DATA names.
"""

import os
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.core.edit import Edit, fill, function, patch
from microtome.core.effects import effects
from microtome.core.errors import Absent
from microtome.core.gradients import gradients
from microtome.core.model import Resumable
from microtome.core.site import Site
from microtome.core.trace import Trace
from microtome.data.pair_files import read_prompts
from microtome.data.pairs import Encode, Pairs, tokenized
from microtome.models.load import load
from microtome.notebook.page import Sentence, Table
from microtome.store.records import Claim
from microtome.studies.study import Report, Setting, Study, Watch, about, at_least, at_most

MODEL, PROMPTS = "stories260k-hf", "circuit-prompts/tinystories_gender_pronoun.json"
TOP = 20  # nodes
STEPS = 10  # of the integral
QUICK_PAIRS = 24
THRESHOLD = 0.05  # logits: what the search leaves out moves the measure by less
HANNA = "Hanna et al. 2024, arXiv 2403.17806"
CONMY = "Conmy et al. 2023, arXiv 2304.14997"


class Node(NamedTuple):
    """The output of one head or MLP at one position, counted back from the last token."""

    site: Site  # z or mlp_out
    head: int  # -1: an MLP
    position: int

    def at(self) -> Site:
        """The place of the site where it stands."""
        return self.site.at(pos=self.position) if self.head < 0 else self.site.at(pos=self.position, head=self.head)

    def __str__(self) -> str:
        unit = f"m{self.site.layer}" if self.head < 0 else f"a{self.site.layer}.h{self.head}"
        return f"{unit} at {self.position}"


class Pronoun(Study):
    name = "pronoun"
    paper = "activation patching and EAP-IG on stories260k (Hanna et al. 2024, arXiv 2403.17806)"
    question = "Which parts of a small story model choose he or she, and do three ways of finding them agree?"

    def __init__(self, quick: int = QUICK_PAIRS, places: Sequence[int] | None = None) -> None:
        """`quick`: how many pairs the quick form finds nodes on. `places`: where, counted from the end (everywhere)."""
        self.quick, self.places = quick, places

    def run(self, setting: Setting, watch: Watch) -> Report:
        folder = material()
        model = load(folder / MODEL, device=setting.device)
        pairs = given(folder / PROMPTS, model.encode)
        measure = pairs.logit_difference()
        clean, corrupt = (measure(model.run(side)) for side in (pairs.clean, pairs.corrupt))
        watch.say(f"{pairs}; logit difference {float(clean.mean()):+.3f} clean, {float(corrupt.mean()):+.3f} corrupt")
        some = pairs.rows(slice(0, self.quick)) if setting.quick else pairs
        nodes = nodes_of(model, some, self.places)
        found = {
            "exact patching": exact_effects(model, some, nodes, watch), "EAP-IG": integrated(model, some, nodes),
            "ACDC": searched(model, some, nodes, watch),
        }  # fmt: skip
        chance = by_chance(found["exact patching"], torch.Generator().manual_seed(setting.seed))
        return Report(
            claims(clean, corrupt, found, chance),
            (Sentence(said(nodes, found["exact patching"])), table(nodes, found)),
        )


STUDY = Pronoun()


def material() -> Path:
    """The folder that MICROTOME_DATA names. Raises Absent where it, the model or the prompts are not there."""
    folder = os.environ.get("MICROTOME_DATA")
    if not folder:
        raise Absent("this study needs stories260k and its prompts; let MICROTOME_DATA name the folder that holds them")
    for part in (MODEL, PROMPTS):
        if not (Path(folder) / part).exists():
            raise Absent(f"MICROTOME_DATA names {folder}, which holds no {part}; put it there")
    return Path(folder)


def given(path: Path, encode: Encode) -> Pairs:
    return tokenized(read_prompts(path), encode).aligned()


# ---------------------------------------------------------------- nodes and what each does


def outputs(model: Resumable) -> list[Site]:
    return [*model.sites("z.*"), *model.sites("mlp_out.*")]


def nodes_of(model: Resumable, pairs: Pairs, places: Sequence[int] | None = None) -> list[Node]:
    """Heads and MLPs at every position that all prompts have, or at some."""
    positions = range(-1, -1 - int(pairs.clean.lengths.min()), -1) if places is None else places
    shown = model.run(pairs.clean.rows(slice(0, 1)), read=outputs(model))
    heads = {s.name: range(shown[s].shape[2]) if "head" in s.axes.split() else range(-1, 0) for s in shown.sites}
    return [Node(s, h, p) for s in outputs(model) for h in heads[s.name] for p in positions]


def exact_effects(model: Resumable, pairs: Pairs, nodes: list[Node], watch: Watch) -> Float[Tensor, "nodes"]:
    """How far the measure moves, mean over pairs, when one node alone is as on the corrupt prompt."""
    corrupt = model.run(pairs.corrupt, read=outputs(model))
    measure = pairs.logit_difference()
    found: list[Tensor] = []
    with watch.stage("patch each node", len(nodes), "nodes") as advance:
        for start in range(0, len(nodes), 50):
            edits = [patch(node.at(), corrupt) for node in nodes[start : start + 50]]
            found.append(effects(model, pairs.clean, edits, measure).moved.mean(1))
            advance(start + len(edits))
    return torch.cat(found)


def integrated(model: Resumable, pairs: Pairs, nodes: list[Node]) -> Float[Tensor, "nodes"]:
    """The same to first order, gradients averaged along the line from clean to corrupt embeddings (midpoints)."""
    sites, start = outputs(model), model.site("resid_pre.0")
    clean, corrupt = (model.run(side, read=[start, *sites]) for side in (pairs.clean, pairs.corrupt))
    summed = {s.name: torch.zeros_like(clean[s]) for s in sites}
    for step in range(STEPS):
        part = (step + 0.5) / STEPS
        entering = fill(start, clean[start] + part * (corrupt[start] - clean[start]))
        felt = gradients(model, pairs.clean, pairs.logit_difference(), sites, edit=[entering])
        for site in sites:
            summed[site.name] += felt[site] / STEPS
    scores = {s.name: (corrupt[s] - clean[s]) * summed[s.name] for s in sites}
    trace = Trace(pairs.clean, scores, {s.name: s for s in sites})
    return torch.stack([trace[node.at()].sum(-1).mean() for node in nodes])


@torch.no_grad()
def searched(model: Resumable, pairs: Pairs, nodes: list[Node], watch: Watch) -> Float[Tensor, "nodes"]:
    """How far the measure moved when ACDC came to leave out each node, with what it had left out before still out.

    From the last layer to the first, an MLP before its heads, the last position first. A node stays where the move is
    at least the threshold; one that is left out holds what it holds on the corrupt prompt.
    """
    corrupt, measure = model.run(pairs.corrupt, read=outputs(model)), pairs.logit_difference()
    out = {site: torch.zeros_like(corrupt[site], dtype=torch.bool) for site in corrupt.sites}
    moved = torch.zeros(len(nodes))
    value = float(measure(model.run(pairs.clean, read=measure.reads)).mean())
    order = sorted(range(len(nodes)), key=lambda i: backwards(nodes[i]))
    with watch.stage("search", len(nodes), "nodes") as advance:
        for done, i in enumerate(order, 1):
            place = nodes[i].at().select(pairs.clean, corrupt[nodes[i].site].shape).index
            out[nodes[i].site][place] = True
            found = float(measure(model.run(pairs.clean, read=measure.reads, edit=held(out, corrupt))).mean())
            moved[i] = found - value
            out[nodes[i].site][place] = missed = bool(moved[i].abs() < THRESHOLD)
            value = found if missed else value
            advance(done)
    return moved


def backwards(node: Node) -> tuple[int, bool, int]:
    return -(node.site.layer or 0), node.head >= 0, -node.position


def held(out: dict[Site, Bool[Tensor, "..."]], corrupt: Trace) -> list[Edit]:
    """The edits by which what is out holds what it holds in the corrupt run."""
    return [function(site, partial(replaced, mask, corrupt[site])) for site, mask in out.items() if mask.any()]


def replaced(mask: Tensor, other: Tensor, here: Tensor) -> Tensor:
    return torch.where(mask, other, here)


def strongest(effect: Float[Tensor, "nodes"]) -> set[int]:
    return set(effect.abs().topk(TOP).indices.tolist())


def overlap(one: Float[Tensor, "nodes"], other: Float[Tensor, "nodes"]) -> float:
    """The share of the strongest nodes that both have."""
    return len(strongest(one) & strongest(other)) / TOP


def by_chance(effect: Float[Tensor, "nodes"], generator: torch.Generator, samples: int = 200) -> float:
    """The mean overlap with as many nodes drawn at random."""
    drawn = [overlap(effect, torch.rand(len(effect), generator=generator)) for _ in range(samples)]
    return sum(drawn) / samples


# ---------------------------------------------------------------- what they show


def claims(
    clean: Tensor, corrupt: Tensor, found: dict[str, Float[Tensor, "nodes"]], chance: float
) -> tuple[Claim, ...]:
    source = "the prompts' own record"
    return (
        about("logit difference on clean prompts", 3.91, float(clean.mean()), tolerance=0.05, source=source),
        about("logit difference on corrupt prompts", -3.91, float(corrupt.mean()), tolerance=0.05, source=source),
        at_least("pairs answered rightly, clean", float(len(clean)), float((clean > 0).sum()), source=source),
        *(at_least(f"top {TOP} nodes shared by {one} and {other}", 0.6, overlap(found[one], found[other]),
                   source=CONMY if "ACDC" in (one, other) else HANNA)
          for one, other in combinations(found, 2)),
        at_most(f"top {TOP} nodes shared by exact patching and chance", 0.2, chance, source=HANNA),
    )  # fmt: skip


def said(nodes: list[Node], exact: Float[Tensor, "nodes"]) -> str:
    first = nodes[int(exact.abs().argmax())]
    return (
        f"{len(nodes)} nodes: every head and MLP at every position that all prompts have, counted back from the last "
        f"token. Corrupting {first} alone moves the logit difference by {float(exact.abs().max()):.2f}."
    )


def table(nodes: list[Node], found: dict[str, Float[Tensor, "nodes"]]) -> Table:
    order = next(iter(found.values())).abs().argsort(descending=True)[:TOP].tolist()
    rows = [[str(nodes[i]), *(f"{float(effect[i]):+.3f}" for effect in found.values())] for i in order]
    return Table(("node", *found), rows, numeric=tuple(range(1, 1 + len(found))))
