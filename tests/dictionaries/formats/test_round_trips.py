"""What a format can express it gives back; what it cannot, it refuses in a sentence that says so."""

from pathlib import Path

import pytest

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.dictionaries.formats.registry import FORMATS, find_all, load_any, write
from tests.dictionaries.formats import examples
from tests.dictionaries.formats.examples import assert_same

THRESHOLDS = ("relu", "batchtopk", "jumprelu")
AUTOENCODERS = {  # format: (activation, units) that it holds
    "microtome": [(a, u) for a in examples.activations() for u in ("none", "whitening", "layer_norm")],
    "saelens": [
        (a, u) for a in examples.activations() for u in ("none", "unit_mean_square", "layer_norm", "unit_norm")
    ],
    "sparsify": [("topk", "none"), ("topk", "whitening")],
    "dictionary_learning": [(a, "unit_mean_square") for a in examples.activations() if a != "abstopk"],
    "gemma_scope": [(a, "unit_mean_square") for a in THRESHOLDS],
    "gemma_scope_2": [(a, "unit_mean_square") for a in THRESHOLDS],
    "llama_scope": [("relu", "unit_mean_square"), ("batchtopk", "none")],
    "qwen_scope": [("topk", "unit_mean_square")],
    "openai": [("relu", "unit_mean_square"), ("topk", "layer_norm")],
}
TRANSCODERS = {  # format: (activation, skip)
    "microtome": [("topk", True)],
    "saelens": [("relu", False), ("relu", True), ("jumprelu", False), ("batchtopk", True)],
    "sparsify": [("topk", False), ("topk", True)],
    "gemma_scope_2": [("jumprelu", False), ("relu", True)],
    "llama_scope": [("relu", False)],
    "circuit_tracer": [("relu", False), ("relu", True), ("topk", False), ("jumprelu", True)],
}


def back(dictionary: Dictionary, name: str, folder: Path) -> Dictionary:
    write(dictionary, folder, name)
    return load_any(folder, allow_pickle=True)


def cases(table: dict) -> list:
    return [
        pytest.param(name, *case, id="-".join(map(str, (name, *case)))) for name, all in table.items() for case in all
    ]


@pytest.mark.parametrize(("name", "activation", "units"), cases(AUTOENCODERS))
def test_an_autoencoder_comes_back(name: str, activation: str, units: str, tmp_path: Path) -> None:
    made = examples.sae(activation, units)
    assert_same(made, back(made, name, tmp_path))


@pytest.mark.parametrize(("name", "activation", "skip"), cases(TRANSCODERS))
def test_a_transcoder_comes_back(name: str, activation: str, skip: bool, tmp_path: Path) -> None:
    made = examples.transcoder(activation, skip=skip)
    assert_same(made, back(made, name, tmp_path))


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "batchtopk"])
def test_a_cross_layer_transcoder_comes_back(activation: str, tmp_path: Path) -> None:
    made = examples.cross_layer(activation)
    assert_same(made, back(made, "circuit_tracer_clt", tmp_path), 2e-6)


def test_a_set_of_transcoders_comes_back_layer_by_layer(tmp_path: Path) -> None:
    made = [examples.transcoder("jumprelu", layer=layer) for layer in range(3)]
    for name in ("circuit_tracer", "saelens", "gemma_scope_2"):
        write(made, tmp_path / name, name)
        found = find_all(tmp_path / name)
        assert [str(f.dictionary.reads[0]) for f in found] == ["mlp_in.0", "mlp_in.1", "mlp_in.2"]
        for one, other in zip(made, found, strict=True):
            assert_same(one, other.dictionary)
        assert_same(made[1], load_any(tmp_path / name, site="blocks.1.mlp.hook_in"))
        with pytest.raises(Refusal, match="holds 3 dictionaries, which read mlp_in.0, mlp_in.1, mlp_in.2; choose one"):
            load_any(tmp_path / name)
        with pytest.raises(Refusal, match="holds no dictionary that reads mlp_in.7"):
            load_any(tmp_path / name, site="mlp_in.7")


@pytest.mark.parametrize("site", ["resid_post.3", "mlp_out.0", "attn_out.11", "resid_mid.2", "embed"])
@pytest.mark.parametrize("name", ["saelens", "sparsify", "gemma_scope_2"])
def test_sites_come_back_by_name(name: str, site: str, tmp_path: Path) -> None:
    made = examples.sae("topk" if name == "sparsify" else "jumprelu", "none", site)
    assert back(made, name, tmp_path).reads == made.reads


def test_where_a_format_does_not_say_the_site_the_user_must(tmp_path: Path) -> None:
    write(examples.sae("relu", site="pooler"), tmp_path, "openai")
    with pytest.raises(Refusal, match=r"does not say at which site .* give it, such as site='resid_post.8'"):
        load_any(tmp_path, allow_pickle=True)
    assert str(load_any(tmp_path, allow_pickle=True, site="blocks.4.hook_resid_post").reads[0]) == "resid_post.4"


REFUSED = {
    "topk in gemma_scope": (lambda: examples.sae("topk"), "gemma_scope", "holds a threshold for each latent, and TopK"),
    "relu in sparsify": (lambda: examples.sae("relu"), "sparsify", "sparsify has TopK alone, and no ReLU"),
    "jumprelu in qwen": (lambda: examples.sae("jumprelu"), "qwen_scope", "has TopK alone, and no JumpReLU"),
    "another site in qwen": (lambda: examples.sae("topk", site="mlp_out.1"), "qwen_scope", "reads resid_post alone"),
    "topk as it is in openai": (lambda: examples.sae("topk"), "openai", "this is TopK with Unchanged"),
    "own thresholds in llama_scope": (lambda: examples.sae("jumprelu"), "llama_scope", "one threshold for all latents"),
    "gated in llama_scope": (lambda: examples.sae("gated"), "llama_scope", "has JumpReLU, and no Gated"),
    "abstopk in dictionary_learning": (lambda: examples.sae("abstopk"), "dictionary_learning", "no place for AbsTopK"),
    "layer norm in gemma_scope": (
        lambda: examples.sae("relu", "layer_norm"), "gemma_scope", "LayerNorm, which depends on the token",
    ),
    "transcoder in openai": (lambda: examples.transcoder("relu"), "openai", "reads mlp_in.2 and writes mlp_out.2"),
    "topk transcoder in saelens": (lambda: examples.transcoder("topk"), "saelens", "and not with TopK"),
    "autoencoder in circuit_tracer": (lambda: examples.sae("relu"), "circuit_tracer", "read one kind of site"),
    "transcoder as a clt": (lambda: examples.transcoder("relu"), "circuit_tracer_clt", "holds no Transcoder"),
    "crosscoder in saelens": (lambda: examples.crosscoder(), "saelens", "a Crosscoder cannot be written"),
    "skip in llama_scope": (lambda: examples.transcoder("relu", skip=True), "llama_scope", "no place for a skip"),
    "clt of topk": (lambda: examples.cross_layer("topk"), "circuit_tracer_clt", "and TopK has none"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_format_cannot_express_is_refused(case: str, tmp_path: Path) -> None:
    make, name, words = REFUSED[case]
    with pytest.raises(Refusal, match=words):
        write(make(), tmp_path, name)


def test_every_format_is_written_and_read_somewhere_here() -> None:
    assert set(AUTOENCODERS) | set(TRANSCODERS) | {"circuit_tracer_clt"} == set(FORMATS)
