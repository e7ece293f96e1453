"""Causal scrubbing: if a hypothesis is right, what it calls interchangeable can be interchanged.

Chan et al. 2022, Causal Scrubbing: a method for rigorously testing interpretability hypotheses (Alignment Forum). A
hypothesis is a tree of sites. Each says which inputs it takes for the same, and which sites it depends on. Every site
is then made anew: from another input that the hypothesis takes for the same, with everything that it calls irrelevant
from inputs drawn blindly. The loss that comes out stands between that of the network itself and that of outputs
exchanged blindly, and where it stands is how much of the behaviour the hypothesis recovers.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.measure import Measure
from microtome.core.model import Model
from microtome.core.replacements import Patch
from microtome.core.site import Site
from microtome.core.trace import Trace


@dataclass(frozen=True, eq=False)
class Node:
    """A site, or a part of one, and what it depends on by the hypothesis.

    `same[row]` is a number for each row of the data: rows of equal numbers are interchangeable here. A node that
    depends on no others is taken whole from such a row, with everything that came before it; one that depends on
    others is made from theirs, and all the rest that it reads comes from a row drawn blindly.
    """

    site: Site
    same: Int[Tensor, "rows"]
    depends: "tuple[Node, ...]" = ()

    def __iter__(self) -> "Iterator[Node]":
        """This node and all that it rests on."""
        yield self
        yield from chain.from_iterable(self.depends)


@dataclass(frozen=True, eq=False)
class Scrubbed:
    """The measure of every row, over draws: of the network itself, of the scrubbed one, and of exchanged outputs."""

    clean: Float[Tensor, "rows"]
    scrubbed: Float[Tensor, "draws rows"]
    random: Float[Tensor, "draws rows"]

    @property
    def recovered(self) -> float:
        """The share that the hypothesis keeps: 1 as the network itself, 0 as outputs exchanged blindly.

        It may leave that range. Raises Refusal where the network itself is no better than blind exchange.
        """
        return self._recovered(torch.arange(len(self.clean), device=self.clean.device))

    def interval(self, *, resamples: int = 1000, generator: torch.Generator | None = None) -> tuple[float, float]:
        """95% of `recovered` over rows drawn again with replacement. Draws of one row go together."""
        size = len(self.clean)
        chosen = torch.randint(size, (resamples, size), generator=generator).to(self.clean.device)
        found = torch.tensor([self._recovered(rows) for rows in chosen])
        low, high = found.quantile(torch.tensor([0.025, 0.975])).tolist()
        return low, high

    def _recovered(self, rows: Int[Tensor, "some"]) -> float:
        clean, scrubbed, random = (x[..., rows].double().mean() for x in (self.clean, self.scrubbed, self.random))
        if clean == random:
            raise Refusal(
                f"the measure is {clean:.4g} both as the network is and with its outputs exchanged blindly, so nothing "
                "can be recovered; choose a measure that the inputs move"
            )
        return ((scrubbed - random) / (clean - random)).item()

    def __str__(self) -> str:
        clean, scrubbed, random = (x.mean().item() for x in (self.clean, self.scrubbed, self.random))
        return f"clean {clean:.4f}, scrubbed {scrubbed:.4f}, random {random:.4f}: {self.recovered:.1%} recovered"


@torch.no_grad()
def scrub(
    model: Model,
    inputs: Inputs,
    hypothesis: Sequence[Node],
    measure: Measure,
    *,
    generator: torch.Generator,
    draws: int = 8,
    rows: int = 256,
) -> Scrubbed:
    """Test a hypothesis about a measure: the nodes that what is measured depends on, everything else drawn blindly.

    Draws are made anew for each place in the tree, so a node that stands twice is two nodes. An empty hypothesis says
    that nothing matters. `rows` bounds the rows of one forward pass. Raises Refusal where rows have different numbers
    of tokens, a node does not speak of every row, or is about a part of the batch.
    """
    refuse(inputs, hypothesis)
    scrubbing = Scrubbing(model, inputs, generator, rows, clean_run(model, inputs, hypothesis, measure, rows))
    clean = scrubbing.clean
    scrubbed = [measure(scrubbing.measured(hypothesis, measure)) for _ in range(draws)]
    random = [measure(scrubbing.measured((), measure)) for _ in range(draws)]
    return Scrubbed(measure(clean), torch.stack(scrubbed), torch.stack(random))


def clean_run(model: Model, inputs: Inputs, nodes: Sequence[Node], measure: Measure, rows: int) -> Trace:
    """The run that the hypothesis's leaves are taken from."""
    leaves = [node.site.whole for node in chain.from_iterable(nodes) if not node.depends]
    return in_parts(model, inputs, [*dict.fromkeys((*leaves, *(s.whole for s in measure.reads)))], [], rows)


@dataclass(frozen=True, eq=False)
class Scrubbing:
    """A network, the data it is scrubbed on, and what its sites hold on them untouched."""

    model: Model
    inputs: Inputs
    generator: torch.Generator
    rows: int
    clean: Trace

    def measured(self, nodes: Sequence[Node], measure: Measure) -> Trace:
        """What the measure looks at, row by row as though of that row, made from the nodes alone."""
        own = torch.arange(len(self.inputs))
        return self.made(nodes, [s.whole for s in measure.reads], own)

    def taken(self, node: Node, of: Int[Tensor, "rows"]) -> Trace:
        """What stands at a node's site for each of these rows: from a row that is the same to it."""
        like = drawn_alike(node.same, of, self.generator)
        if node.depends:
            return self.made(node.depends, [node.site.whole], like)
        return Trace(
            self.inputs, {node.site.name: self.clean[node.site.whole][like]}, {node.site.name: node.site.whole}
        )

    def made(self, nodes: Sequence[Node], read: Sequence[Site], of: Int[Tensor, "rows"]) -> Trace:
        """Sites made for each of these rows from the nodes that they depend on, all else from rows drawn blindly.

        The blind rows are a reordering of the data: the forward pass goes through them in their own order, and what
        it makes is put where it belongs.
        """
        blind = torch.randperm(len(of), generator=self.generator)
        for_whom = blind.argsort()
        parents = [(node.site, self.taken(node, of)) for node in nodes]
        edits = [Patch(site, reordered(trace, for_whom)) for site, trace in parents]
        return reordered(in_parts(self.model, self.inputs, read, edits, self.rows), blind)


def drawn_alike(same: Int[Tensor, "rows"], of: Int[Tensor, "some"], generator: torch.Generator) -> Int[Tensor, "some"]:
    """For each row one that is the same to a node, itself not excepted, each with equal chance."""
    order = same.argsort(stable=True)
    ranked = same[order].contiguous()
    wanted = same[of]
    first, stop = torch.searchsorted(ranked, wanted), torch.searchsorted(ranked, wanted, right=True)
    chance = torch.rand(len(of), generator=generator)
    return order[first + (chance * (stop - first)).long()]


def reordered(trace: Trace, rows: Int[Tensor, "rows"]) -> Trace:
    """The same inputs, with row i holding what stood in row rows[i]."""
    return Trace(trace.inputs, {name: x[rows] for name, x in trace.values_by_name.items()}, trace.sites_by_name)


def in_parts(model: Model, inputs: Inputs, read: Sequence[Site], edits: Iterable[Patch], rows: int) -> Trace:
    """One run of all rows, `rows` at a time."""
    edits, found = list(edits), []
    for start in range(0, len(inputs), rows):
        part = slice(start, start + rows)
        mine = [Patch(e.site, e.source.rows(part)) for e in edits]
        found.append(model.run(inputs.rows(part), read=read, edit=mine))
    values = {site.name: torch.cat([trace[site.whole] for trace in found]) for site in read}
    return Trace(inputs, values, {site.name: site for site in read})


def refuse(inputs: Inputs, hypothesis: Sequence[Node]) -> None:
    """Raises Refusal for rows of several lengths, and for a hypothesis about other rows."""
    if isinstance(inputs, Tokens) and len(lengths := inputs.lengths.unique()) > 1:
        raise Refusal(
            f"rows of {int(lengths[0])} to {int(lengths[-1])} tokens cannot be exchanged place by place; "
            "scrub rows of one length at a time"
        )
    for node in chain.from_iterable(hypothesis):
        if len(node.same) != len(inputs):
            raise Refusal(
                f"the node at {node.site} speaks of {len(node.same)} rows and there are {len(inputs)}; "
                "give `same` a number for each row"
            )
        if "batch" in dict(node.site.where):
            raise Refusal(f"the node at {node.site} is about some rows alone; a node is about every row of the data")
