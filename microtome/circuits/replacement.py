"""The local replacement model: a network on one prompt, with dictionaries in its place where they stand, made linear.

Attention patterns and the scales of norms are held as they were; what a dictionary does not explain stays, as an error.
So what reaches any place is a sum over what the components, the errors and the token embeddings wrote, plus a constant.
Ameisen et al. 2025, Circuit Tracing (Transformer Circuits), "Attribution graphs".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.circuits.active import Active, Reading
from microtome.circuits.frozen_norms import HeldNorm, Passage, norms
from microtome.core.component import Dictionary
from microtome.core.edit import Edit, patch
from microtome.core.errors import NoSuchSite, Refusal, SiteWithdrawn
from microtome.core.inputs import Inputs, Tokens
from microtome.core.model import Model
from microtome.core.site import Selection, Site
from microtome.core.trace import Trace

FEATURE, ERROR, TOKEN, TARGET = "feature", "error", "token", "target"


@dataclass(frozen=True)
class Node:
    """One thing on one position: an active component, what a dictionary missed, a token, or a target.

    `layer` is that of the site it reads (of an error, that it is written at); tokens have -1, targets one past the
    last. `index` is the component's, the token's id, a target's number in the vocabulary or -1, and 0 for errors.
    """

    kind: str
    layer: int
    position: int
    index: int
    activity: float
    dictionary: int = -1  # which of the dictionaries; -1 for what is no component
    label: str = ""

    def __str__(self) -> str:
        return self.label or f"{self.kind} {self.layer}.{self.index} at {self.position}"


@dataclass(frozen=True, eq=False)
class Ends:
    """Vectors of some nodes at one site: what they write there, or what they read."""

    site: Site
    nodes: Int[Tensor, "some"]
    positions: Int[Tensor, "some"]
    vectors: Float[Tensor, "some d"]

    def total(self, like: Float[Tensor, "1 pos d"]) -> Float[Tensor, "1 pos d"]:
        """All of them together, each at its position."""
        return torch.zeros_like(like[0]).index_add(0, self.positions, self.vectors)[None]


@dataclass(frozen=True, eq=False)
class Given(Edit):
    """A tensor in place of what arrives, plus what passes a dictionary by; what arrived is noted."""

    tensor: Float[Tensor, "1 pos d"]
    past: Dictionary | None
    place: int
    passage: Passage
    replaces: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[Site, ...]:
        return () if self.past is None else self.past.reads

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        self.passage.arrived[self.site.name] = part
        made = self.tensor
        if self.past is not None:
            bypass = self.past.bypass(self.past.gather(self.passage.at(arrived)))
            made = made + (bypass[self.place] if len(self.past.writes) > 1 and bypass.ndim else bypass)
        self.passage.left[self.site.name] = made
        return made

    def __str__(self) -> str:
        return f"put sources at {self.site}"


class Replacement:
    """The replacement model of one prompt.

    `nodes` are the active components by layer, position and number, then an error for each written site and position,
    then the tokens. `written` holds what they write, by site; `readings` what the components read.
    """

    def __init__(
        self,
        model: Model,
        inputs: Inputs,
        dictionaries: Sequence[Dictionary],
        *,
        constant_at: Sequence[int] = (0,),
        through_mlps: bool = False,
        also: Sequence[Site] = (),
    ) -> None:
        """`inputs` is one row. At the positions `constant_at` no component is a node: what the written sites hold there
        is part of the constant, as dictionaries are trained without a text's first token.

        An MLP that no dictionary writes for is an error as a whole; `through_mlps` follows its derivative instead (for
        autoencoders on the stream), and the graph is then a linearisation. `also` are further sites to read. Raises
        Refusal for dictionaries that do not fit the model or one another.
        """
        self.model, self.inputs, self.dictionaries = model, one_row(inputs), list(dictionaries)
        self.also = list(also)
        self.sites = {s.name: s for s in model.sites("*")}
        self.patterns = patterns(model)
        self.stream = last_read(self.sites)
        self.unexplained = [] if through_mlps else uncovered(self.sites, self.dictionaries)
        self.affine = not through_mlps
        self.refuse_unfit()
        self.clean = self._clean()
        self.length = self.clean[self.sites["embed"]].shape[1]
        self.constant_at = sorted({p % self.length for p in constant_at if -self.length <= p < self.length})
        with torch.no_grad():
            self._find_nodes()
            self.norms = norms(model, self.inputs, self.clean, self.sites)
        self.passage, self.tensors, self.leaves = self._forward({n: self.held[n] for n in self.held})

    # ------------------------------------------------------------ what there is

    def refuse_unfit(self) -> None:
        """Raises Refusal for a model without embeddings, and dictionaries that do not fit it or each other."""
        if "embed" not in self.sites:
            raise Refusal(
                "this model has no site 'embed', so its tokens cannot be nodes; name one: load(..., sites=...)"
            )
        written: list[str] = []
        for dictionary in self.dictionaries:
            for site in (*dictionary.reads, *dictionary.writes):
                refuse_heads(self.model.site(site.name), dictionary)
            written += [s.name for s in dictionary.writes]
        twice = next((n for n in written if written.count(n) > 1), None)
        if twice:
            raise Refusal(f"two dictionaries write at {twice}; give one for each site")

    def _clean(self) -> Trace:
        """The run to be explained."""
        used = {s.name: s for s in self.also} | {s.name: s for d in self.dictionaries for s in (*d.reads, *d.writes)}
        kinds = ("embed", "resid_", "attn_in", "attn_out", "mlp_in", "mlp_out", "final_norm", "logits")
        wanted = used | {n: s for n, s in self.sites.items() if n.startswith(kinds)}
        with torch.no_grad():
            return self.model.run(self.inputs, read=[*wanted.values(), *self.patterns])

    def _find_nodes(self) -> None:
        self.nodes: list[Node] = []
        self.written: dict[str, list[Ends]] = {}
        self.readings: list[Reading] = []
        live = [Active(d, self.clean, self.constant_at) for d in self.dictionaries]
        order = sorted((*found.key(row), i, row) for i, found in enumerate(live) for row in range(len(found.rows)))
        number = [torch.empty(len(found.rows), dtype=torch.long) for found in live]
        for node, (layer, position, component, i, row) in enumerate(order):
            number[i][row] = node
            self.nodes.append(Node(FEATURE, layer, position, component, float(live[i].values[row]), i))
            self.readings.append(live[i].reading(row))
        for found, nodes in zip(live, number, strict=True):
            for site, vectors in zip(found.dictionary.writes, found.writes, strict=True):
                self.written.setdefault(site.name, []).append(Ends(site, nodes, found.rows, vectors))
        self.features = len(self.nodes)
        for site, error in self._errors():
            self._write_everywhere(site, ERROR, site.layer if site.layer is not None else 0, [0] * self.length, error)
        tokens = self.inputs.ids[0].tolist() if isinstance(self.inputs, Tokens) else list(range(self.length))
        self.errors = len(self.nodes) - self.features
        self._write_everywhere(self.sites["embed"], TOKEN, -1, tokens, self.clean["embed"][0])
        self.constants = {n: held - sum_of(self.written[n], held) for n, held in self.held.items()}

    def _errors(self) -> Iterator[tuple[Site, Float[Tensor, "pos d"]]]:
        """What stays unexplained at every written site, in the order of the network; and what is held there."""
        found: dict[str, tuple[Site, Tensor]] = {s.name: (s, self.clean[s]) for s in self.unexplained}
        self.held = {s.name: self.clean[s].detach() for s in (self.sites["embed"], *self.unexplained)}
        self.past: dict[str, tuple[Dictionary, int]] = {}
        for dictionary in self.dictionaries:
            made = dictionary.reconstruct(dictionary.gather(self.clean))
            bypass = dictionary.bypass(dictionary.gather(self.clean))
            own = set(dictionary.reads) & set(dictionary.writes)
            for place, site in enumerate(dictionary.writes):
                part = made[place] if len(dictionary.writes) > 1 else made
                found[site.name] = site, self.clean[site] - part
                past = bypass[place] if len(dictionary.writes) > 1 and bypass.ndim else bypass
                if bypass.ndim and not own:
                    self.past[site.name] = dictionary, place
                self.held[site.name] = self.clean[site] - past if bypass.ndim and not own else self.clean[site]
        for name in sorted(found, key=list(self.sites).index):
            site, error = found[name]
            kept = error[0].clone()
            kept[self.constant_at] = 0
            yield site, kept

    def _write_everywhere(self, site: Site, kind: str, layer: int, numbers: list[int], vectors: Tensor) -> None:
        start = len(self.nodes)
        sizes = vectors.norm(dim=-1).tolist() if kind == ERROR else [1.0] * self.length
        self.nodes += [Node(kind, layer, p, numbers[p], sizes[p]) for p in range(self.length)]
        places = torch.arange(self.length)
        self.written.setdefault(site.name, []).append(Ends(site, places + start, places, vectors))

    # ------------------------------------------------------------ runs

    @property
    def reads(self) -> list[Site]:
        """The sites at which anything is read: by components, and by the unembedding."""
        named = {s.name: s for d in self.dictionaries for s in d.reads} | {s.name: s for s in self.also}
        return list((named | {self.stream.name: self.stream}).values())

    def _forward(
        self, sources: Mapping[str, Tensor], extra: Sequence[Site] = ()
    ) -> tuple[Passage, dict[str, Tensor], dict[str, Tensor]]:
        """One pass from these sources: what was met, what stands at each site that is read, where gradients end."""
        leaves = {n: x.detach().clone().requires_grad_() for n, x in sources.items()}
        passage = Passage()
        given = [
            Given(self.sites.get(n) or self.model.site(n), x, *(self.past.get(n) or (None, 0)), passage)
            for n, x in leaves.items()
        ]
        held = [HeldNorm(norm.gap.after, norm, passage) for norm in self.norms if norm.gap.after.name not in leaves]
        edits = [*given, *held, *(patch(site, self.clean) for site in self.patterns)]
        with torch.enable_grad():
            trace = self.model.run(self.inputs, read=[*self.reads, *extra], edit=edits)
        tensors = {s.name: passage.arrived.get(s.name, trace[s]) for s in (*self.reads, *extra)}
        return passage, tensors, leaves

    def logits(self) -> Float[Tensor, "1 pos vocab"]:
        """Those of the replacement model: errors kept, they are the model's own."""
        _, tensors, _ = self._forward(self.held, [self.model.site("logits")])
        return tensors["logits"].detach()

    def run(self, sources: Mapping[str, Tensor], read: Sequence[Site]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What stands at these sites when this is put where nodes write; and the leaves at which gradients end."""
        _, tensors, leaves = self._forward(sources, read)
        return tensors, leaves

    def at_zero(self) -> dict[str, Tensor]:
        """What stands at each site that is read when no node writes: what biases alone make there."""
        _, tensors, _ = self._forward(self.constants)
        return {n: x.detach() for n, x in tensors.items()}

    # ------------------------------------------------------------ effects

    def rows(self, site: Site, readings: Sequence[Reading]) -> Float[Tensor, "readings nodes"]:
        """What each node contributes to each reading, all of them at one site: one vector-Jacobian product each.

        One copy of the network is kept, whatever the number of readings.
        """
        if site.name not in self.tensors:
            raise Refusal(
                f"this replacement model does not read {site}; build it with also=[model.site({site.name!r})]"
            )
        out = self.tensors[site.name]
        pulled = out.new_zeros(len(readings), *out.shape)
        for i, reading in enumerate(readings):
            pulled[i, 0, reading.position] = reading.vector
        return self.contributions(out, pulled, self.leaves)

    def contributions(self, out: Tensor, pulled: Tensor, leaves: Mapping[str, Tensor]) -> Float[Tensor, "some nodes"]:
        """What each node contributes to some sums over a tensor of a run that began at these leaves."""
        rows = out.new_zeros(len(pulled), len(self.nodes))
        if not out.requires_grad:
            return rows
        names = list(leaves)
        found = torch.autograd.grad(
            out, [leaves[n] for n in names], pulled, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        for name, gradient in zip(names, found, strict=True):
            if gradient is not None:
                add_contributions(rows, gradient[:, 0], self.written[name])
        return rows


def add_contributions(rows: Tensor, gradient: Float[Tensor, "readings pos d"], written: Sequence[Ends]) -> None:
    """Add what each node writes, along a gradient, to each reading's row."""
    for ends in written:
        for row, pulled in zip(rows, gradient, strict=True):
            row.index_add_(0, ends.nodes, (pulled[ends.positions] * ends.vectors).sum(-1))


def sum_of(written: Sequence[Ends], like: Float[Tensor, "1 pos d"]) -> Float[Tensor, "1 pos d"]:
    """All that some nodes write, at their positions."""
    return torch.stack([ends.total(like) for ends in written]).sum(0)


def refuse_heads(site: Site, dictionary: Dictionary) -> None:
    """Raises Refusal for a site that is not one vector a position."""
    if len(site.axes.split()) != 3:
        raise Refusal(
            f"{type(dictionary).__name__} stands at {site}, whose axes are {site.axes!r}; a node of a graph is one "
            "place of 'batch pos d', so give dictionaries of the stream, of attn_out or of the MLP's sites"
        )


def one_row(inputs: Inputs) -> Inputs:
    """The same without padding. Raises Refusal for a batch: each prompt has a graph of its own."""
    if len(inputs) != 1:
        raise Refusal(f"{len(inputs)} prompts were given; a graph is of one, so build one for each: inputs.rows(...)")
    return Tokens.of(inputs.ids[:, inputs.mask[0]]) if isinstance(inputs, Tokens) else inputs


def patterns(model: Model) -> list[Site]:
    """Where attention looks, in every layer; none in a network that has no such sites."""
    try:
        return model.sites("pattern.*")
    except SiteWithdrawn:
        raise
    except NoSuchSite:
        return []


def last_read(sites: Mapping[str, Site]) -> Site:
    """What the unembedding reads: the final norm's output, or the stream after the last layer."""
    last = [s for n, s in sites.items() if n.startswith("resid_post.")]
    if "final_norm" not in sites and not last:
        raise Refusal("this model has neither 'final_norm' nor 'resid_post' sites; name one: load(..., sites=...)")
    return sites["final_norm"] if "final_norm" in sites else last[-1]


def uncovered(sites: Mapping[str, Site], dictionaries: Sequence[Dictionary]) -> list[Site]:
    """What MLPs write that no dictionary stands in for."""
    written = {s.name.replace("mlp_out_raw", "mlp_out") for d in dictionaries for s in d.writes}
    return [s for n, s in sites.items() if n.startswith("mlp_out.") and n not in written]
