"""With patterns and norm scales held and errors kept, the network is itself, and linear in what is written."""

import pytest
import torch
from torch import Tensor

from microtome.circuits.replacement import ERROR, FEATURE, TOKEN, Replacement
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import ReLU
from microtome.dictionaries.crosscoder import Crosscoder
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.transcoder import Transcoder
from microtome.models.hooked import HookedModel
from tests.circuits.sets import autoencoders, cross_layer, jolted, prompt, relative, transcoders, width_of
from tests.models import zoo

TOLERANCE = 1e-4
FAMILIES = [n for n in zoo.SAYING if n not in ("opt/post-norm",)]


def replacement(name: str, made: str = "transcoders") -> Replacement:
    model = zoo.model(name)
    sets = {
        "transcoders": lambda: transcoders(model),
        "skip": lambda: transcoders(model, skip=True),
        "cross-layer": lambda: [cross_layer(model)],
        "one layer": lambda: transcoders(model)[:1],
        "autoencoders": lambda: autoencoders(model),
    }
    return Replacement(model, prompt(), sets[made]())


def all_rows(made: Replacement) -> Tensor:
    return torch.cat([made.rows(r.site, [r]) for r in made.readings])


@pytest.mark.parametrize("made", ["transcoders", "skip", "cross-layer", "one layer", "autoencoders"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_error_nodes_make_the_replacement_models_logits_the_models(name: str, made: str) -> None:
    model = replacement(name, made)
    assert relative(model.logits(), zoo.model(name).run(prompt())["logits"]) < TOLERANCE


@pytest.mark.parametrize("name", FAMILIES)
def test_what_every_component_reads_is_the_sum_of_its_edges_and_its_bias(name: str) -> None:
    """Truth 6, in every family: sandwich norms, parallel branches, rotations, grouped keys, experts, sliding windows."""
    made = replacement(name)
    zero = made.at_zero()
    rows = all_rows(made)
    for reading, row in zip(made.readings, rows, strict=True):
        bias = zero[reading.site.name][0, reading.position] @ reading.vector + reading.offset
        assert abs(float(row.sum() + bias) - reading.value) < TOLERANCE * max(1.0, float(row.abs().max()))


@pytest.mark.parametrize("made", ["skip", "cross-layer", "one layer", "autoencoders"])
def test_so_it_is_for_every_kind_of_dictionary(made: str) -> None:
    model = replacement("llama", made)
    zero = model.at_zero()
    for reading, row in zip(model.readings, all_rows(model), strict=True):
        bias = zero[reading.site.name][0, reading.position] @ reading.vector + reading.offset
        assert abs(float(row.sum() + bias) - reading.value) < TOLERANCE * max(1.0, float(row.abs().max()))


def test_the_bias_of_a_component_is_its_own_bias_and_what_biases_wrote() -> None:
    model = zoo.model("llama")
    made = Replacement(model, prompt(), transcoders(model))
    for node, reading in zip(made.nodes, made.readings, strict=False):
        dictionary = made.dictionaries[node.dictionary]
        assert reading.offset == pytest.approx(float(dictionary.b_enc[node.index]), abs=1e-4)


@pytest.mark.parametrize("made", ["transcoders", "skip", "cross-layer", "autoencoders"])
def test_an_edge_is_what_taking_its_source_away_would_change(made: str) -> None:
    """Brute force: one source more, wherever it writes, and all else held."""
    model = replacement("gemma2", made)
    rows, zero = all_rows(model), model.at_zero()
    for node in range(0, len(model.nodes), 9):
        alone = {n: x.clone() for n, x in model.constants.items()}
        for name, written in model.written.items():
            for ends in written:
                mine = ends.nodes == node
                alone[name][0].index_add_(0, ends.positions[mine], ends.vectors[mine])
        _, met, _ = model._forward(alone)
        for row, reading in zip(rows, model.readings, strict=True):
            moved = (met[reading.site.name].detach() - zero[reading.site.name])[0, reading.position] @ reading.vector
            assert float(moved) == pytest.approx(float(row[node]), abs=1e-4)


@torch.no_grad()
def test_edges_by_gradient_are_edges_by_weights() -> None:
    """Truth 5: the direct path, and each head's, multiplied out of the weights of a Llama with grouped keys."""
    model = zoo.model("llama")
    made = Replacement(model, prompt(), transcoders(model))
    layer = model.module.model.layers[1]
    heads, kv = layer.self_attn.config.num_attention_heads, layer.self_attn.config.num_key_value_heads
    clean = made.clean
    pattern, scale = clean["pattern.1"][0], {}
    for name, norm in (("attn_in.1", layer.input_layernorm), ("mlp_in.1", layer.post_attention_layernorm)):
        before = {"attn_in.1": "resid_pre.1", "mlp_in.1": "resid_mid.1"}[name]
        s = (clean[before][0].pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
        scale[name] = norm.weight / s
    w_v = layer.self_attn.v_proj.weight.unflatten(0, (kv, -1)).repeat_interleave(heads // kv, 0)
    w_o = layer.self_attn.o_proj.weight.unflatten(1, (heads, -1))
    first, second = made.dictionaries
    rows = all_rows(made)
    for t, target in enumerate(made.nodes):
        if target.kind != FEATURE or target.layer != 1:
            continue
        reads = second.W_enc[target.index] * scale["mlp_in.1"][target.position]
        for s, source in enumerate(made.nodes):
            if source.kind != FEATURE or source.layer != 0:
                continue
            wrote = source.activity * first.W_dec[source.index]
            direct = float(reads @ wrote) if source.position == target.position else 0.0
            values = torch.einsum("hkd,d->hk", w_v, wrote * scale["attn_in.1"][source.position])
            by_head = torch.einsum("d,dhk,hk->h", reads, w_o, values)
            assert float(rows[t, s]) == pytest.approx(
                direct + float(by_head @ pattern[:, target.position, source.position]), abs=1e-4
            )


def test_on_a_network_without_attention_or_norms_edges_are_products_of_weights(network: HookedModel) -> None:
    d = width_of(network)
    made = [Transcoder(network.site(f"mlp_in.{l}"), network.site(f"mlp_out.{l}"), d, d, 10, ReLU()) for l in range(2)]
    for seed, dictionary in enumerate(made):
        jolted(dictionary, seed)
    graph = Replacement(network, prompt(), made)
    rows = all_rows(graph)
    for t, target in enumerate(graph.nodes[: graph.features]):
        reads = made[target.dictionary].W_enc[target.index]
        for s, source in enumerate(graph.nodes):
            same = source.position == target.position
            if source.kind == TOKEN and source.position <= target.position:
                weight = same + 1 / (target.position + 1)  # each place adds the mean of all up to it
                wanted = weight * float(reads @ network.module.embed.weight[source.index])
            elif source.kind == FEATURE and same and source.layer < target.layer:
                wanted = source.activity * float(reads @ made[source.dictionary].W_dec[source.index])
            elif source.kind == ERROR and same and source.layer < target.layer:
                continue
            else:
                wanted = 0.0
            assert float(rows[t, s]) == pytest.approx(wanted, abs=1e-4)


def test_padding_never_matters() -> None:
    model = zoo.model("qwen2")
    dictionaries = transcoders(model)
    alone = all_rows(Replacement(model, prompt(), dictionaries))
    for left in (False, True):
        batch = Tokens.of([prompt().ids[0].tolist(), [3] * 11], left=left)
        padded = all_rows(Replacement(model, batch.rows(slice(0, 1)), dictionaries))
        assert torch.allclose(padded, alone, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    model = zoo.model("llama")
    made = transcoders(model)
    wide = Transcoder(model.site("mlp_in.0"), model.site("mlp_out.0"), 7, 7, 5, ReLU())
    with pytest.raises(Refusal, match="fitted on this model|wide"):
        Replacement(model, prompt(), [wide])
    with pytest.raises(Refusal, match="two dictionaries write at mlp_out.0"):
        Replacement(model, prompt(), [made[0], made[0]])
    with pytest.raises(Refusal, match="no site 'mlp_in.7'"):
        Replacement(model, prompt(), [Transcoder(Site("mlp_in.7"), Site("mlp_out.7"), 32, 32, 5, ReLU())])
    with pytest.raises(Refusal, match="several sites"):
        Replacement(model, prompt(), [Crosscoder(model.sites("mlp_out.*"), 32, 8, ReLU())])
    with pytest.raises(Refusal, match="one for each"):
        Replacement(model, zoo.batch("llama"), made)


def test_dictionaries_of_heads_are_refused_by_a_graph() -> None:
    model = zoo.model("gpt2")
    with pytest.raises(Refusal, match="SAE stands at z.1, whose axes are 'batch pos head d'"):
        Replacement(model, zoo.batch("gpt2").rows(slice(0, 1)), [SAE(model.site("z.1"), 8, 16, ReLU())])
