"""Direct logit attribution: what each head, MLP and the embedding write toward a logit, the final norm's scale held.

logit = W_U norm(embed + sum of what heads and MLPs write).  With the norm's scale held at what it was this is a sum of
one term for each writer; norms between a head and the stream are held too. No weight is changed: gains and centring
are folded into the direction that is read, at each place.
nostalgebraist 2020; Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; Wang et al. 2022.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.circuits.affine_maps import Affine, affine, unpadded
from microtome.circuits.frozen_norms import Gap, Norm, centred, probed, scale_of
from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs
from microtome.core.model import Model
from microtome.core.site import Site

CAPPED = 1e-3  # how small vectors are put in where the logits are capped: so small that the cap does not bend them
OFF = 1e-3  # of the stream's largest number: beyond it, what is written does not sum to the stream
Ids = Int[Tensor, "batch"]


class Writer(NamedTuple):
    """What writes to the stream: `embed`, `head`, `attn_bias`, `attn` (whole), `mlp`; `bias` is what nothing wrote."""

    kind: str
    layer: int = -1
    head: int = -1

    def __str__(self) -> str:
        if self.kind == "head":
            return f"a{self.layer}.h{self.head}"
        return f"{self.kind} {self.layer}" if self.layer >= 0 else self.kind


@dataclass(frozen=True, eq=False)
class DirectLogits:
    """What each writer adds to the logit (or the difference of two), at each place, in logits.

    The sum over writers is `total`: the network's own logit, before the cap in families that cap it. Places of padding
    hold nothing of meaning.
    """

    writers: tuple[Writer, ...]
    values: Float[Tensor, "writers batch pos"]
    total: Float[Tensor, "batch pos"]
    inputs: Inputs

    def last(self) -> Float[Tensor, "writers batch"]:
        """At each row's last token."""
        return torch.stack([Site("value", "batch pos").at(pos=-1).take(v, self.inputs) for v in self.values])

    def heads(self) -> Float[Tensor, "layer head batch pos"]:
        """Those of heads alone. Raises Refusal where the model has no site `z` to tell them apart."""
        layers = sorted({w.layer for w in self.writers if w.kind == "head"})
        if not layers:
            raise Refusal("this model has no site z, so its heads are not told apart; look at the writers of kind attn")
        chosen = [[v for w, v in zip(self.writers, self.values, strict=True) if w[:2] == ("head", l)] for l in layers]
        return torch.stack([torch.stack(each) for each in chosen])

    def by_layer(self) -> dict[str, Float[Tensor, "batch pos"]]:
        """Heads and biases of a layer's attention together: embed, attn 0, mlp 0, ..., bias."""
        found: dict[str, Tensor] = {}
        for writer, value in zip(self.writers, self.values, strict=True):
            name = f"attn {writer.layer}" if writer.kind in ("head", "attn_bias") else str(writer)
            found[name] = found.get(name, 0.0) + value
        return found


@dataclass(frozen=True, eq=False)
class Readout:
    """The direction along which the stream's end is read for a logit, scales held: logit = vector . stream + offset."""

    vector: Float[Tensor, "batch pos d"]
    offset: Float[Tensor, "batch pos"]

    def through(self, norm: Norm | None) -> "Readout":
        """The same, read before a norm whose output is added to the stream."""
        if norm is None:
            return self
        vector = centred(self.vector * norm.gain, norm.centres) / norm.scale
        return Readout(vector, self.offset + self.vector @ norm.bias)


@torch.no_grad()
def direct_logits(model: Model, inputs: Inputs, right: Ids, wrong: Ids | None = None) -> DirectLogits:
    """What each writer adds to the logit of `right` (less that of `wrong`), one token a row, at every position.

    Raises Refusal where what is written does not sum to the stream (families that norm the stream itself), and where
    logits have no positions.
    """
    stream = Stream(model, inputs)
    readout = stream.readout(right, wrong)
    writers, values = stream.contributions(readout)
    total = (readout.vector * stream.clean[stream.end]).sum(-1) + readout.offset
    return DirectLogits(tuple(writers), torch.stack(values), total, inputs)


@torch.no_grad()
def source_logits(
    model: Model, inputs: Inputs, layer: int, right: Ids, wrong: Ids | None = None
) -> Float[Tensor, "batch head query key"]:
    """What each head of a layer adds at each position, by the position it took it from; bias left out.

    Summed over keys this is the head's direct logit.
    """
    stream = Stream(model, inputs)
    pattern, v = (model.site(f"{name}.{layer}") for name in ("pattern", "v"))
    trace = model.run(inputs, read=[pattern, v])
    read = stream.by_head(stream.readout(right, wrong), layer)
    values = trace[v].repeat_interleave(read.shape[2] // trace[v].shape[2], 2)
    return trace[pattern] * torch.einsum("bkhd,bqhd->bhqk", values, read)


@torch.no_grad()
def component_logits(
    model: Model, inputs: Inputs, dictionary: Dictionary, right: Ids, wrong: Ids | None = None
) -> Float[Tensor, "batch components"]:
    """What each component of a dictionary adds to the logit at each row's last token: its activity along its direction.

    Raises Refusal for one that does not write, once, what is added to the stream.
    """
    if len(dictionary.writes) != 1 or dictionary.writes[0].name.rpartition(".")[0] not in ADDED | ENDS:
        raise Refusal(
            f"{type(dictionary).__name__} writes at {[str(s) for s in dictionary.writes]}; direct logits are those of "
            "components that write at one of attn_out, mlp_out, their raw forms, or the stream"
        )
    stream, site = Stream(model, inputs), dictionary.writes[0]
    last = Site("place", "batch pos d").at(pos=-1)
    vector = last.take(stream.at(site.name, stream.readout(right, wrong)).vector, inputs)
    codes = dictionary.encode(dictionary.gather(model.run(inputs, read=dictionary.reads))).dense()
    return last.take(codes, inputs) * (vector @ dictionary.directions().write.sum(-2).T)


ADDED = frozenset({"attn_out", "mlp_out", "attn_out_raw", "mlp_out_raw"})
ENDS = frozenset({"resid_pre", "resid_mid", "resid_post"})


class Stream:
    """One run of a network, as a sum of what was written to its stream."""

    def __init__(self, model: Model, inputs: Inputs) -> None:
        self.model, self.inputs = model, inputs
        self.sites: Mapping[str, Site] = {s.name: s for s in model.sites("*")}
        self.layers = sorted(
            s.layer for n, s in self.sites.items() if n.startswith("resid_post.") and s.layer is not None
        )
        if not self.layers or "resid_pre.0" not in self.sites:
            raise Refusal("this model has no sites resid_pre and resid_post; name them: load(..., sites=...)")
        if "pos" not in self.sites["logits"].axes.split():
            raise Refusal(f"logits have the axes {self.sites['logits'].axes!r} and no positions; give a language model")
        self.end = self.sites[f"resid_post.{self.layers[-1]}"]
        wanted = [s for n, s in self.sites.items() if n.rpartition(".")[0] in ADDED | {"z"} or n == "final_norm"]
        self.clean = model.run(inputs, read=[self.sites["resid_pre.0"], *wanted, self.end])
        self.refuse_unsummed()

    def added(self) -> list[Site]:
        """The sites whose sum, with the first resid_pre, the stream is."""
        return [
            self.sites[f"{k}_out.{l}"] for l in self.layers for k in ("attn", "mlp") if f"{k}_out.{l}" in self.sites
        ]

    def refuse_unsummed(self) -> None:
        """Raises Refusal where what is written does not sum to the stream's end."""
        mask = getattr(self.inputs, "mask", torch.ones(()))[..., None]
        summed = self.clean["resid_pre.0"] + sum(self.clean[s] for s in self.added())
        off = float(((summed - self.clean[self.end]) * mask).abs().max() / (self.clean[self.end] * mask).abs().max())
        if not off <= OFF:
            raise Refusal(
                f"what is written does not sum to {self.end} (off by {off:.1e} of the largest): this family norms "
                "the stream itself, so a logit is no sum over its writers; use patching"
            )

    # ------------------------------------------------------------ the direction that is read

    def readout(self, right: Ids, wrong: Ids | None) -> Readout:
        """What a logit, or a difference of two, reads at the stream's end, the norm held as it was."""
        site = self.sites.get("final_norm", self.end)
        unembedding = self.unembedding(site)
        direction, offset = columns(unembedding, right)
        if wrong is not None:
            other, less = columns(unembedding, wrong)
            direction, offset = direction - other, offset - less
        shape = self.clean[self.end].shape[:2]
        whole = Readout(direction[:, None].expand(*shape, -1), offset[:, None].expand(shape))
        return whole if site is self.end else whole.through(self.norm(self.end, site))

    def unembedding(self, site: Site) -> Affine:
        """From the last norm to the logits; where a cap bends them, what they are before it."""
        push = partial(affine, self.model, self.inputs, site, self.sites["logits"])
        try:
            return push()
        except Refusal:
            return push(size=CAPPED)

    def norm(self, before: Site, after: Site) -> Norm | None:
        """What stands between two sites, at the scales of this run; None where nothing does that bends."""
        gap, row = Gap(before, after), unpadded(self.inputs)
        for found in probed(self.model, row, self.model.run(row, read=[before, after]), [gap]):
            return replace(found, scale=scale_of(gap, found.gain, found.bias, found.centres, self.clean))
        return None

    def at(self, name: str, readout: Readout) -> Readout:
        """The direction as it is read at a site: before the norm that stands between a raw output and the stream."""
        raw = self.sites.get(name)
        if raw is None or "_raw." not in name:
            return readout
        return readout.through(self.norm(raw, self.sites[name.replace("_raw", "")]))

    # ------------------------------------------------------------ the sum

    def contributions(self, readout: Readout) -> tuple[list[Writer], list[Float[Tensor, "batch pos"]]]:
        """Every writer, and what it gives the logit at each position."""
        writers, values = [Writer("embed")], [along(readout, self.clean["resid_pre.0"])]
        for layer in self.layers:
            if f"z.{layer}" in self.sites and f"attn_out.{layer}" in self.sites:
                by_head = (self.by_head(readout, layer) * self.clean[f"z.{layer}"]).sum(-1).unbind(2)
                rest = along(readout, self.clean[f"attn_out.{layer}"]) - torch.stack(by_head).sum(0)
                writers += [*(Writer("head", layer, h) for h in range(len(by_head))), Writer("attn_bias", layer)]
                values += [*by_head, rest]
            elif f"attn_out.{layer}" in self.sites:
                writers.append(Writer("attn", layer))
                values.append(along(readout, self.clean[f"attn_out.{layer}"]))
            if f"mlp_out.{layer}" in self.sites:
                writers.append(Writer("mlp", layer))
                values.append(along(readout, self.clean[f"mlp_out.{layer}"]))
        return [*writers, Writer("bias")], [*values, readout.offset]

    def by_head(self, readout: Readout, layer: int) -> Float[Tensor, "batch pos head d"]:
        """The direction as each head's z meets it: through W_O and no wider than the heads together."""
        raw = f"attn_out_raw.{layer}"
        out = raw if raw in self.sites else f"attn_out.{layer}"
        z = self.sites[f"z.{layer}"]
        weight = affine(self.model, self.inputs, z, self.sites[out]).weight
        return (self.at(out, readout).vector @ weight.T).view(self.clean[z].shape)


def along(readout: Readout, x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos"]:
    """The product of each place with what is read there."""
    return (readout.vector * x).sum(-1)


def columns(unembedding: Affine, ids: Ids) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch"]]:
    """The unembedding of each row's token, and its bias."""
    return unembedding.weight[:, ids.cpu()].T, unembedding.bias[ids.cpu()]
