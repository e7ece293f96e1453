"""How heads and MLPs of a network are joined to its residual stream: by which sites, and by which weights.

Found on the network itself. A projection is a linear map between two sites, and its matrix is what differentiation says
it is, so no family needs a table of its weights here. Where a family norms what attention returns before adding it
(sandwich norms), a head's share of what is added is what it wrote, divided by the scale that the norm had in that run:
then the shares sum to the whole.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.edges import Anatomy
from microtome.circuits.frozen_norms import Gap, Norm
from microtome.circuits.normed import Normed, norm_between, normed
from microtome.circuits.projections import Inward, Outward, Projection, own_weight
from microtome.core.edit import Edit, fill
from microtome.core.errors import NoSuchSite, Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.model import Resumable
from microtome.core.site import Site
from microtome.core.trace import Trace

ALIKE = 1e-3  # of the largest value, beyond rounding in float32


class Layer(NamedTuple):
    """The sites of one layer. `mid` is the stream that the MLP reads: `pre`, where both branches read that."""

    pre: Site
    attn_in: Site
    q: Site
    k: Site
    v: Site
    z: Site
    raw: Site  # what the output projection returns
    attn_out: Site  # what is added to the stream
    mid: Site
    mlp_in: Site
    mlp_out: Site
    post: Site


class Reading(NamedTuple):
    """What a layer's heads read the stream by, once it is normed."""

    q: Float[Tensor, "head e d"]
    k: Float[Tensor, "kv_head e d"]
    v: Float[Tensor, "kv_head e d"]


@dataclass(frozen=True, eq=False)
class From:
    """A network whose runs begin at one of its blocks, which each row enters with the same stream."""

    model: Resumable
    layer: int
    stream: Float[Tensor, "1 pos d"]

    def site(self, name: str) -> Site:
        return self.model.site(name)

    def sites(self, pattern: str = "*") -> list[Site]:
        return self.model.sites(pattern)

    def run(
        self,
        inputs: Inputs,
        *,
        read: Iterable[Site] | None = None,
        edit: Sequence[Edit] = (),
        leaves: Iterable[Site] = (),
    ) -> Trace:
        wanted = [self.site("logits")] if read is None else read
        stream = self.stream.repeat(len(inputs), 1, 1)
        return self.model.resume(inputs, self.layer - 1, stream, read=wanted, edit=edit, leaves=leaves)


@dataclass(eq=False)
class Wiring:
    """A network's anatomy, its sites, and its attention's weights, found when they are first needed.

    `keep` holds on to them: as views of the network's own parameters where they stand there, else as copies, which take
    as much memory. Without it copies are made anew each time, each at about the cost of one block's pass over as many
    tokens as the model is wide.
    """

    model: Resumable
    anatomy: Anatomy
    layers: list[Layer]
    token: Inputs
    stream: Float[Tensor, "1 pos d"]  # what enters the first block for this token; any would do for the others
    keep: bool = True
    _reading: dict[int, Reading] = field(default_factory=dict)
    _writing: dict[int, Tensor] = field(default_factory=dict)
    _gain: dict[int, Tensor] = field(default_factory=dict)
    _norms: dict[int, Norm | None] = field(default_factory=dict)

    @property
    def streams(self) -> list[Site]:
        """The stream before each layer, and after the last."""
        return [*(layer.pre for layer in self.layers), self.layers[-1].post]

    def reading(self, layer: int) -> Reading:
        """What each head's queries, keys and values read, in the normed stream."""
        if layer in self._reading:
            return self._reading[layer]
        start, *ends = (sites := self.layers[layer]).attn_in, sites.q, sites.k, sites.v
        with torch.enable_grad():
            trace = self.at(layer).run(self.token, read=[start, *ends], leaves=[start])
            found = Reading(*(self._stands(Inward(trace[end], trace[start])) for end in ends))
        if self.keep:
            self._reading[layer] = found
        return found

    def writing(self, layer: int) -> Float[Tensor, "head e d"]:
        """What each entry of a head's z writes, before a sandwich norm."""
        if layer in self._writing:
            return self._writing[layer]
        sites = self.layers[layer]
        with torch.enable_grad():
            trace = self.at(layer).run(self.token, read=[sites.z, sites.raw], leaves=[sites.z])
            found = self._stands(Outward(trace[sites.raw], trace[sites.z]))
        if self.keep:
            self._writing[layer] = found
        return found

    def at(self, layer: int) -> From:
        """The network from this layer on."""
        return From(self.model, layer, self.stream)

    def _stands(self, projection: Projection) -> Float[Tensor, "head e d"]:
        own = own_weight(self.model.weights(), projection) if self.keep else None
        return projection.weight() if own is None else own

    # ------------------------------------------------------------ norms

    def normed(self, layer: int, trace: Trace) -> Normed:
        """What stands between the stream and a layer's heads, in a run that holds both."""
        gap = Gap(self.layers[layer].pre, self.layers[layer].attn_in)
        if layer not in self._norms:
            self._norms[layer] = norm_between(self.at(layer), self.token, gap)
        return normed(self._norms[layer], gap, trace)

    def sandwiched(self, layer: int) -> bool:
        """Whether a layer norms what attention returns before adding it."""
        return self.layers[layer].raw != self.layers[layer].attn_out

    @torch.no_grad()
    def gain(self, layer: int) -> Float[Tensor, "d"]:
        """The gain of the norm between what attention returns and what is added: what it makes of a large vector."""
        if layer not in self._gain:
            sites = self.layers[layer]
            signs = torch.full_like(self.at(layer).run(self.token, read=[sites.raw])[sites.raw], 100.0)
            signs[..., 1::2] *= -1
            answer = self.at(layer).run(self.token, read=[sites.attn_out], edit=[fill(sites.raw, signs)])
            self._gain[layer] = answer[sites.attn_out][0, 0] / signs[0, 0].sign()
        return self._gain[layer]

    def inverse(self, layer: int, trace: Trace) -> Float[Tensor, "batch pos 1"]:
        """One over the scale that a sandwich norm had at each position of a run.

        Raises Refusal where that norm is not a division by one number at each position.
        """
        added = trace[self.layers[layer].attn_out]
        given = self.gain(layer) * trace[self.layers[layer].raw]
        inverse = (given * added).sum(-1, keepdim=True) / given.pow(2).sum(-1, keepdim=True).clamp(min=1e-30)
        off = float((inverse * given - added).detach().abs().max() / added.detach().abs().max().clamp(min=1e-30))
        if off > ALIKE:
            raise Refusal(
                f"what stands between {self.layers[layer].raw} and {self.layers[layer].attn_out} is no division by one "
                "number at each position, so no head has a share of what is added; edges need a norm that is"
            )
        return inverse

    def scale(self, layer: int, trace: Trace) -> Float[Tensor, "batch pos d"] | None:
        """By what a run multiplied what its heads wrote before adding it: None where there is no sandwich norm."""
        return self.inverse(layer, trace) * self.gain(layer) if self.sandwiched(layer) else None


def wiring(model: Resumable, inputs: Inputs, *, keep: bool = True) -> Wiring:
    """How this network's parts are joined to its stream; `inputs` are some that it takes.

    Raises Refusal where the stream is not the sum of what is written into it (a network that norms the sum).
    """
    count = len(model.sites("resid_pre.*"))
    layers = [layer_of(model, i) for i in range(count)]
    token = first_token(inputs)
    with torch.no_grad():
        trace = model.run(token, read=dict.fromkeys((*layers[0], *layers[-1])))
    refuse_other_sums(layers, trace)
    heads, kv_heads = trace[layers[0].z].shape[2], trace[layers[0].k].shape[2]
    anatomy = Anatomy(count, heads, kv_heads, layers[0].mid == layers[0].pre)
    return Wiring(model, anatomy, layers, token, trace[layers[0].pre], keep)


def layer_of(model: Resumable, i: int) -> Layer:
    """The sites of one layer, each under the name that this family has for it."""
    first = lambda *kinds: first_of(model, [f"{kind}.{i}" for kind in kinds])  # noqa: E731
    return Layer(
        first("resid_pre"), first("attn_in"), first("q_raw", "q"), first("k_raw", "k"), first("v"), first("z"),
        first("attn_out_raw", "attn_out"), first("attn_out"), first("resid_mid", "resid_pre"), first("mlp_in"),
        first("mlp_out"), first("resid_post"),
    )  # fmt: skip


def first_of(model: Resumable, names: list[str]) -> Site:
    """The first of these sites that the model offers. Raises what it says of the last, if none."""
    *others, last = names
    for name in others:
        try:
            return model.site(name)
        except NoSuchSite:
            continue
    return model.site(last)


def first_token(inputs: Inputs) -> Inputs:
    """As little as the network takes: one token, or one row of what is no text."""
    if isinstance(inputs, Tokens):
        return Tokens.of(inputs.ids[:1][inputs.mask[:1]][None, :1])
    return inputs.rows(slice(0, 1))


def refuse_other_sums(layers: list[Layer], trace: Trace) -> None:
    """Raises Refusal where the stream is no plain sum of what is written into it."""
    for layer in (layers[0], layers[-1]):
        parallel = layer.mid == layer.pre
        mid = trace[layer.pre] if parallel else trace[layer.mid]
        sums = [] if parallel else [(layer.mid, trace[layer.pre] + trace[layer.attn_out])]
        with_heads = mid + trace[layer.attn_out] if parallel else mid
        for site, total in (*sums, (layer.post, with_heads + trace[layer.mlp_out])):
            if (trace[site] - total).abs().max() > ALIKE * total.abs().max():
                raise Refusal(
                    f"{site} is not the sum of what is written into the stream (this network norms it between its "
                    "parts), so there are no edges from writers to later readers; patch sites instead"
                )
