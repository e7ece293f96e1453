"""Information flow routes: which writers make up what each reader reads, in one run and without a second prompt.

    importance(w of y) = max(0, |y| - |y - u_w|) / sum over w,    |.| the sum of absolute values

where y is the stream that is read and u_w what w wrote into it. Ferrando and Voita 2024 (arXiv 2403.00824).
"""

# pyright: reportUnknownMemberType=false

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.edge_attribution import written
from microtome.circuits.edges import EdgeGraph
from microtome.circuits.gradient_paths import masked
from microtome.circuits.wiring import Wiring, wiring
from microtome.core.inputs import Inputs, Tokens
from microtome.core.model import Resumable
from microtome.core.trace import Trace


@torch.no_grad()
def routes(model: Resumable, inputs: Inputs, *, wired: Wiring | None = None) -> EdgeGraph:
    """For every edge the share of the reader's stream that the writer makes up: a mean over a row's real positions.

    All readers of one stream have the same shares, which sum to one.
    """
    wired = wired or wiring(model, inputs)
    anatomy = wired.anatomy
    sites = dict.fromkeys(
        s for la in wired.layers for s in (la.pre, la.mid, la.post, la.z, la.raw, la.attn_out, la.mlp_out)
    )
    trace = model.run(inputs, read=sites)
    each = trace[wired.layers[0].pre].new_zeros(len(inputs), len(anatomy.writers), len(anatomy.readers))
    wrote = [trace[wired.layers[0].pre][:, None]]
    for i, layer in enumerate(wired.layers):
        each[:, :, anatomy.read_at(i, "q", "k", "v")] = shares(wrote, trace[layer.pre], trace, each)
        heads = shares_of_heads(wired, i, trace)
        seen = wrote if anatomy.parallel else [*wrote, heads]
        each[:, :, anatomy.read_at(i, "mlp")] = shares(seen, trace[layer.mid], trace, each)
        wrote += [heads, trace[layer.mlp_out][:, None]]
    each[:, :, -1:] = shares(wrote, trace[wired.layers[-1].post], trace, each)
    return EdgeGraph.of(anatomy, each, "share of the stream")


def shares_of_heads(wired: Wiring, layer: int, trace: Trace) -> Float[Tensor, "batch head pos d"]:
    """What each head adds to the stream, after the norm on the branch where there is one."""
    wrote = written(trace[wired.layers[layer].z], wired.writing(layer))
    scale = wired.scale(layer, trace)
    return wrote if scale is None else wrote * scale[:, None]


def shares(
    wrote: list[Tensor], stream: Float[Tensor, "batch pos d"], trace: Trace, like: Tensor
) -> Float[Tensor, "batch writers 1"]:
    """How much of a stream each writer is; nothing for those that come later."""
    size = stream.abs().sum(-1)
    near = [(size[:, None] - (stream[:, None] - each).abs().sum(-1)).clamp(min=0) for each in wrote]
    near = torch.cat(near, 1)
    near = near / near.sum(1, keepdim=True).clamp(min=torch.finfo(near.dtype).tiny)
    found = like.new_zeros(like.shape[0], like.shape[1], 1)
    found[:, : near.shape[1], 0] = over_positions(near.transpose(1, 2), trace.inputs)
    return found


def over_positions(x: Float[Tensor, "batch pos writers"], inputs: Inputs) -> Float[Tensor, "batch writers"]:
    """The mean over each row's real positions."""
    if not isinstance(inputs, Tokens):
        return x.mean(1)
    return masked(x, inputs.mask).sum(1) / inputs.mask.sum(1, keepdim=True)
