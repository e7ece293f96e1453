"""An edge in a run of edges is that edge patched by hand: writer's share, reader's projection, everything else as it was."""

import pytest
import torch
from torch import Tensor, nn

from microtome.circuits.circuit_run import CircuitRun, exact_edges
from microtome.circuits.edges import Edge
from microtome.circuits.wiring import Wiring, wiring
from microtome.core.edit import fill
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.measure import Measure
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.toys import induction
from microtome.toys.transformer import Block, Transformer
from tests.circuits.pairs_of_tokens import JOINED, MEASURE, one_row, pairs
from tests.models import zoo

SAMPLE = [
    "input->a0.h1<q>", "input->a0.h0<k>", "input->a1.h1<v>", "input->m0", "input->logits", "a0.h2->a1.h3<q>",
    "a0.h1->a1.h0<k>", "a0.h3->a1.h1<v>", "a0.h0->m1", "a0.h0->logits", "m0->a1.h2<q>", "m0->m1", "a1.h3->logits",
    "m1->logits",
]  # fmt: skip


def share(model: HookedModel, wired: Wiring, inputs: Tokens, edge: Edge) -> Tensor:
    """What a writer writes in a run, by the model's own modules."""
    writer = edge.writer
    if writer.kind == "input":
        return model.run(inputs, read=["resid_pre.0"])["resid_pre.0"]
    sites = wired.layers[writer.layer]
    if writer.kind == "mlp":
        return model.run(inputs, read=[sites.mlp_out])[sites.mlp_out]
    trace = model.run(inputs, read=dict.fromkeys([sites.z, sites.raw, sites.attn_out]))
    path = next(e.through[0] for e in model.family.equations if e.target == sites.raw.name)
    project, alone = model.module.get_submodule(path), torch.zeros_like(trace[sites.z])
    alone[:, :, writer.head] = trace[sites.z][:, :, writer.head]
    written = project(alone.flatten(2)) - project(torch.zeros_like(alone).flatten(2))
    return written * trace[sites.attn_out] / trace[sites.raw]


def by_hand(model: HookedModel, wired: Wiring, clean: Tokens, corrupt: Tokens, edge: Edge) -> Tensor:
    """Two runs: one that shows what the reader makes of the changed stream, one in which nothing but that is changed."""
    change = share(model, wired, corrupt, edge) - share(model, wired, clean, edge)
    change = torch.where(clean.mask[..., None], change, 0)
    reader = edge.reader
    if reader.kind == "logits":
        stream, seen = wired.layers[-1].post, None
    else:
        sites = wired.layers[reader.layer]
        stream = sites.mid if reader.kind == "mlp" else sites.pre
        seen = {"q": sites.q, "k": sites.k, "v": sites.v, "mlp": sites.mlp_in}[reader.kind]
    entered = fill(stream, model.run(clean, read=[stream])[stream] + change)
    if seen is None:
        return MEASURE(model.run(clean, edit=[entered]))
    made = model.run(clean, read=[seen], edit=[entered])[seen]
    edit = fill(seen, made) if reader.kind == "mlp" else fill(seen.at(head=reader.head), made[:, :, reader.head])
    return MEASURE(model.run(clean, edit=[edit]))


@pytest.mark.parametrize("name", JOINED)
@pytest.mark.parametrize("left", [False, True])
@torch.no_grad()
def test_exact_edges_are_edges_patched_one_at_a_time_by_hand(name: str, left: bool) -> None:
    model, (clean, corrupt) = zoo.model(name), pairs(name, left=left)
    wired = wiring(model, clean)
    edges = [wired.anatomy.named(edge) for edge in SAMPLE]
    found = exact_edges(model, clean, corrupt, MEASURE, edges=edges, wired=wired, rows=18)
    before = MEASURE(model.run(clean))
    for edge in edges:
        w, r = wired.anatomy.place(edge)
        expected = by_hand(model, wired, clean, corrupt, edge) - before
        torch.testing.assert_close(
            found.each[:, w, r], expected, rtol=1e-4, atol=1e-5, msg=lambda m, e=edge: f"{e}: {m}"
        )


@pytest.mark.parametrize("name", JOINED)
@torch.no_grad()
def test_with_all_edges_it_is_the_clean_run_and_with_none_the_corrupt_one(name: str) -> None:
    model, (clean, corrupt) = zoo.model(name), pairs(name)
    run = CircuitRun(wiring(model, clean), clean, corrupt, MEASURE)
    whole = run.wired.anatomy.possible.float()
    found = run(torch.stack([whole, torch.zeros_like(whole)]))
    torch.testing.assert_close(found[0], MEASURE(model.run(clean)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], MEASURE(model.run(corrupt)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("left", [False, True])
@torch.no_grad()
def test_a_batch_of_pairs_and_cells_is_each_alone(left: bool) -> None:
    model, (clean, corrupt) = zoo.model("gemma3_text"), pairs("gemma3_text", left=left)
    together = CircuitRun(wiring(model, clean), clean, corrupt, MEASURE)
    possible = together.wired.anatomy.possible
    kept = (torch.rand(3, *possible.shape) < 0.5).float() * possible
    found = together(kept)
    for r in range(3):
        measure = Measure(lambda t, r=r: difference(t, r), MEASURE.reads, "one row")
        alone = CircuitRun(together.wired, one_row(clean, r), one_row(corrupt, r), measure)
        for c in range(3):
            torch.testing.assert_close(found[c, r], alone(kept[c : c + 1])[0, 0], rtol=1e-4, atol=1e-5)


class Read(nn.Module):
    """A projection of something else than the stream."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.tanh())


def of_two_layers(*, read: bool = False) -> HookedModel:
    """Attention that adds positions to what queries and keys read, or attention that reads past a bend; with MLPs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Transformer(96, 8, d=16, heads=4, d_head=4, neurons=24)
        for block in network.blocks:
            assert isinstance(block, Block)
            if read:
                block.attention.register_module("k", Read(block.attention.k))
            else:
                block.register_module("attention", induction.Attention(16, 4, 8))
    return load(network, sites=network.sites)


@torch.no_grad()
def test_positions_added_inside_attention_are_what_they_are_at_each_position() -> None:
    model, (clean, corrupt) = of_two_layers(), pairs("gpt2", ragged=False)
    run = CircuitRun(wiring(model, clean), clean, corrupt, MEASURE)
    whole = run.wired.anatomy.possible.float()
    found = run(torch.stack([whole, torch.zeros_like(whole)]))
    torch.testing.assert_close(found[0], MEASURE(model.run(clean)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], MEASURE(model.run(corrupt)), rtol=1e-4, atol=1e-5)


def test_attention_that_reads_no_projection_of_the_stream_is_refused() -> None:
    model, (clean, corrupt) = of_two_layers(read=True), pairs("gpt2", ragged=False)
    with pytest.raises(Refusal, match="k.0 is no projection of attn_in.0"):
        CircuitRun(wiring(model, clean), clean, corrupt, MEASURE)


def difference(trace, row: int) -> Tensor:
    logits = trace[MEASURE.reads[0]]
    return logits[:, 5 + row] - logits[:, 8 + row]


def test_pairs_that_are_not_aligned_are_refused() -> None:
    model, (clean, corrupt) = zoo.model("gpt2"), pairs("gpt2")
    shorter = Tokens.of([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    with pytest.raises(Refusal, match="pair 0 has 7 clean tokens and 3 corrupt ones"):
        exact_edges(model, clean, shorter, MEASURE)
    with pytest.raises(Refusal, match="padded on different sides"):
        exact_edges(model, clean, pairs("gpt2", left=True)[1], MEASURE)
    with pytest.raises(Refusal, match="3 clean prompts and 1 corrupt ones"):
        exact_edges(model, clean, corrupt.rows(slice(0, 1)), MEASURE)
