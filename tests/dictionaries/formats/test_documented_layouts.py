"""Each format, from a file laid out as its owner documents it, against the formula that belongs to it."""

# ruff: noqa: N806  (weights are named as papers and files name them)

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.dictionaries.formats.registry import find, load_any
from tests.dictionaries.formats.examples import rows

D, N, K, LAYERS = 6, 9, 3, 3


@pytest.fixture
def numbers() -> dict[str, Tensor]:
    torch.manual_seed(1)
    sizes = {"We": (N, D), "be": (N,), "Wd": (N, D), "bd": (D,), "t": (N,), "r": (N,), "bm": (N,), "skip": (D, D)}
    made = {name: torch.randn(*size) for name, size in sizes.items()}
    return made | {"t": made["t"].abs()}


def save(folder: Path, tensors: dict, name: str, config: dict | None = None, config_name: str = "cfg.json") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".pt"):
        torch.save(tensors, path)
    elif name.endswith(".npz"):
        np.savez(path, **{key: x.numpy() for key, x in tensors.items()})
    else:
        save_file({key: x.clone(memory_format=torch.contiguous_format) for key, x in tensors.items()}, path)
    if config is not None:
        (path.parent / config_name).write_text(json.dumps(config))


def topk(pre: Tensor, k: int = K) -> Tensor:
    kept = pre.topk(k, -1)
    return torch.zeros_like(pre).scatter(-1, kept.indices, kept.values.relu())


def jump(pre: Tensor, t: Tensor | float) -> Tensor:
    return pre * (pre > t)


def same(path: Path, codes: Callable[[Tensor], Tensor], made: Callable[[Tensor], Tensor], **more: object) -> None:
    """The dictionary at this path codes and reconstructs as these formulas."""
    found = load_any(path, allow_pickle=True, **more)
    x = rows(D)
    torch.testing.assert_close(found.encode(x).dense(), codes(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.reconstruct(x), made(x), atol=1e-4, rtol=1e-5)


def saelens(folder: Path, tensors: dict, **config: object) -> None:
    about = {
        "d_in": D, "d_sae": N, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
        "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"hook_name": "blocks.4.hook_resid_post", "sae_lens_version": "6.1.0"},
    }  # fmt: skip
    save(folder, tensors, "sae_weights.safetensors", about | config)


def test_saelens_rescaled_by_the_length_of_the_decoders_rows(numbers: dict[str, Tensor], tmp_path: Path) -> None:
    We, be, Wd, bd = (numbers[key] for key in ("We", "be", "Wd", "bd"))
    saelens(
        tmp_path, {"W_enc": We.T, "b_enc": be, "W_dec": Wd, "b_dec": bd}, architecture="topk", k=K,
        rescale_acts_by_decoder_norm=True,
    )  # fmt: skip
    lengths = Wd.norm(dim=1)

    def codes(x: Tensor) -> Tensor:
        return topk(((x - bd) @ We.T + be) * lengths)

    same(tmp_path, codes, lambda x: (codes(x) / lengths) @ Wd + bd)


def test_saelens_with_a_norm_that_is_the_tokens(numbers: dict[str, Tensor], tmp_path: Path) -> None:
    We, be, Wd, bd = (numbers[key] for key in ("We", "be", "Wd", "bd"))
    saelens(
        tmp_path, {"W_enc": We.T, "b_enc": be, "W_dec": Wd, "b_dec": bd}, architecture="standard",
        normalize_activations="constant_norm_rescale", apply_b_dec_to_input=False,
    )  # fmt: skip

    def factor(x: Tensor) -> Tensor:
        return D**0.5 / x.norm(dim=-1, keepdim=True)

    def inner(x: Tensor) -> Tensor:
        return torch.relu(x * factor(x) @ We.T + be)

    same(tmp_path, lambda x: inner(x) / factor(x), lambda x: (inner(x) @ Wd + bd) / factor(x))


def test_saelens_whose_scale_lies_beside_it(numbers: dict[str, Tensor], tmp_path: Path) -> None:
    We, be, Wd, bd = (numbers[key] for key in ("We", "be", "Wd", "bd"))
    tensors = {"W_enc": We.T, "b_enc": be, "W_dec": Wd, "b_dec": bd}
    saelens(tmp_path, tensors, architecture="standard", normalize_activations="expected_average_only_in")
    assert any("by a factor that the file does not hold" in line for line in find(tmp_path).lines)
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.5}))

    def codes(x: Tensor) -> Tensor:
        return torch.relu((0.5 * x - bd) @ We.T + be)

    same(tmp_path, codes, lambda x: (codes(x) @ Wd + bd) / 0.5)


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        (
            {"hook_point": "blocks.4.hook_resid_post", "activation_fn_str": "relu", "normalize_activations": False},
            torch.relu,
        ),
        ({"hook_name": "blocks.4.hook_resid_post", "activation_fn": "topk", "activation_fn_kwargs": {"k": K}}, topk),
        (
            {"hook_name": "blocks.4.hook_resid_post", "normalize_activations": None, "activation_fn_kwargs": None},
            torch.relu,
        ),
    ],
)
def test_saelens_before_version_six(
    config: dict, activation: Callable[[Tensor], Tensor], numbers: dict[str, Tensor], tmp_path: Path
) -> None:
    We, be, Wd, bd = (numbers[key] for key in ("We", "be", "Wd", "bd"))
    tensors = {"W_enc": We.T, "b_enc": be, "W_dec": Wd, "b_dec": bd, "scaling_factor": torch.ones(N)}
    save(tmp_path, tensors, "sae_weights.safetensors", {"d_in": D, "d_sae": N, **config})

    def codes(x: Tensor) -> Tensor:
        return activation((x - bd) @ We.T + be)

    same(tmp_path, codes, lambda x: codes(x) @ Wd + bd)
    assert str(load_any(tmp_path).reads[0]) == "resid_post.4"


def test_saelens_of_an_architecture_that_is_not_known(numbers: dict[str, Tensor], tmp_path: Path) -> None:
    saelens(tmp_path, {"W_dec": numbers["Wd"], "b_dec": numbers["bd"]}, architecture="temporal")
    with pytest.raises(Refusal, match="architecture 'temporal'; this version reads standard, gated"):
        load_any(tmp_path)


def dictionary_learning(folder: Path, tensors: dict, kind: str, **more: object) -> None:
    about = {"dict_class": kind, "activation_dim": D, "dict_size": N, "submodule_name": "resid_post_layer_4", **more}
    save(folder, tensors, "ae.pt", {"trainer": about}, "config.json")


def test_dictionary_learnings_classes(numbers: dict[str, Tensor], tmp_path: Path) -> None:
    We, be, Wd, bd, t, r, bm = (numbers[key] for key in ("We", "be", "Wd", "bd", "t", "r", "bm"))
    linear = {"encoder.weight": We, "encoder.bias": be, "decoder.weight": Wd.T}
    scalar = {"k": torch.tensor(K), "threshold": torch.tensor(0.4)}
    lengths = Wd.norm(dim=1)

    def pre(x: Tensor) -> Tensor:
        return (x - bd) @ We.T + be

    def gate(x: Tensor) -> Tensor:
        product = (x - bd) @ We.T
        return (product + be > 0) * torch.relu(product * r.exp() + bm)

    cases: dict[str, tuple[dict, Callable[[Tensor], Tensor], Tensor]] = {
        "AutoEncoder": (linear | {"bias": bd}, lambda x: torch.relu(pre(x)) * lengths, Wd / lengths[:, None]),
        "AutoEncoderNew": (linear | {"decoder.bias": bd}, lambda x: torch.relu(x @ We.T + be), Wd),
        "GatedAutoEncoder": (
            {"encoder.weight": We, "decoder.weight": Wd.T, "decoder_bias": bd, "r_mag": r, "gate_bias": be, "mag_bias": bm},
            gate, Wd,
        ),
        "AutoEncoderTopK": (linear | scalar | {"b_dec": bd}, lambda x: topk(pre(x)), Wd),
        "BatchTopKSAE": (linear | scalar | {"b_dec": bd}, lambda x: jump(pre(x), 0.4), Wd),
        "MatryoshkaBatchTopKSAE": (
            {"W_enc": We.T, "b_enc": be, "W_dec": Wd, "b_dec": bd, "group_sizes": torch.tensor([3, 6]), **scalar},
            lambda x: jump(pre(x), 0.4), Wd,
        ),
        "JumpReluAutoEncoder": (
            {"W_enc": We.T, "b_enc": be, "W_dec": Wd, "b_dec": bd, "threshold": t}, lambda x: jump(x @ We.T + be, t), Wd,
        ),
    }  # fmt: skip
    for kind, (tensors, codes, written) in cases.items():
        dictionary_learning(tmp_path / kind, tensors, kind)
        same(tmp_path / kind, codes, lambda x, codes=codes, written=written: codes(x) @ written + bd)
    dictionary_learning(
        tmp_path / "unset",
        linear | {"k": torch.tensor(K), "threshold": torch.tensor(-1.0), "b_dec": bd},
        "BatchTopKSAE",
    )
    same(tmp_path / "unset", lambda x: torch.relu(pre(x)), lambda x: torch.relu(pre(x)) @ Wd + bd)
    dictionary_learning(tmp_path / "other", linear, "CrossCoder")
    with pytest.raises(Refusal, match="is a CrossCoder of dictionary_learning; this version reads AutoEncoder"):
        load_any(tmp_path / "other", allow_pickle=True)


def test_sparsify_with_a_skip_connection(numbers: dict[str, Tensor], tmp_path: Path) -> None:
    We, be, Wd, bd, skip = (numbers[key] for key in ("We", "be", "Wd", "bd", "skip"))
    folder = tmp_path / "layers.3.mlp"
    config = {"activation": "topk", "k": K, "num_latents": 0, "transcode": True, "skip_connection": True, "d_in": D}
    save(
        folder,
        {"encoder.weight": We, "encoder.bias": be, "W_dec": Wd, "b_dec": bd, "W_skip": skip},
        "sae.safetensors",
        config,
    )

    def codes(x: Tensor) -> Tensor:
        return topk(x @ We.T + be)

    same(folder, codes, lambda x: codes(x) @ Wd + bd + x @ skip.T)
    found = load_any(tmp_path)
    assert (str(found.reads[0]), str(found.writes[0])) == ("mlp_in.3", "mlp_out.3")


def test_openai_layer_norms_where_it_selects(numbers: dict[str, Tensor], tmp_path: Path) -> None:
    We, be, Wd, bd = (numbers[key] for key in ("We", "be", "Wd", "bd"))
    tensors = {
        "encoder.weight": We, "latent_bias": be, "decoder.weight": Wd.T, "pre_bias": bd, "activation": "TopK",
        "activation_state_dict": {"k": K, "postact_fn": "ReLU"}, "latents_activation_frequency": torch.ones(N),
    }  # fmt: skip
    path = tmp_path / "resid_post_mlp_v5_32k" / "autoencoders" / "7.pt"
    save(path.parent, tensors, "7.pt")

    def centred(x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True)

    def codes(x: Tensor) -> Tensor:
        return topk((centred(x) / (x.std(-1, keepdim=True) + 1e-5) - bd) @ We.T + be)

    same(
        path, lambda x: codes(x) * (x.std(-1, keepdim=True) + 1e-5),
        lambda x: (codes(x) @ Wd + bd) * x.std(-1, keepdim=True) + x.mean(-1, keepdim=True),
    )  # fmt: skip
    assert str(load_any(path, allow_pickle=True).reads[0]) == "resid_post.7"


def test_gemma_scope(numbers: dict[str, Tensor], tmp_path: Path) -> None:
    We, be, Wd, bd, t = (numbers[key] for key in ("We", "be", "Wd", "bd", "t"))
    folder = tmp_path / "gemma-scope-2b-pt-mlp" / "layer_20" / "width_16k" / "average_l0_71"
    save(folder, {"W_enc": We.T, "b_enc": be, "W_dec": Wd, "b_dec": bd, "threshold": t}, "params.npz")

    def codes(x: Tensor) -> Tensor:
        return jump(x @ We.T + be, t)

    same(folder, codes, lambda x: codes(x) @ Wd + bd)
    same(tmp_path, codes, lambda x: codes(x) @ Wd + bd)
    assert str(load_any(folder / "params.npz").reads[0]) == "mlp_out.20"


def test_gemma_scopes_transcoders_read_what_no_module_shows(numbers: dict[str, Tensor], tmp_path: Path) -> None:
    We, be, Wd, bd, t = (numbers[key] for key in ("We", "be", "Wd", "bd", "t"))
    folder = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_1" / "width_16k" / "average_l0_5"
    save(folder, {"W_enc": We.T, "b_enc": be, "W_dec": Wd, "b_dec": bd, "threshold": t}, "params.npz")
    with pytest.raises(Refusal, match="reads the normed stream before the norm's gain"):
        load_any(folder)


@pytest.mark.parametrize("described", [True, False])
def test_gemma_scope_2_with_an_affine_path(described: bool, numbers: dict[str, Tensor], tmp_path: Path) -> None:
    We, be, Wd, bd, t, skip = (numbers[key] for key in ("We", "be", "Wd", "bd", "t", "skip"))
    folder = tmp_path / "transcoder_all" / "layer_5_width_16k_l0_small_affine"
    about = {
        "architecture": "jump_relu", "hf_hook_point_in": "model.layers.5.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.5.post_feedforward_layernorm.output",
    }  # fmt: skip
    tensors = {"w_enc": We.T, "b_enc": be, "w_dec": Wd, "b_dec": bd, "threshold": t, "affine_skip_connection": skip}
    save(folder, tensors, "params.safetensors", about if described else None, "config.json")

    def codes(x: Tensor) -> Tensor:
        return jump(x @ We.T + be, t)

    same(folder, codes, lambda x: codes(x) @ Wd + bd + x @ skip)
    found = load_any(folder)
    assert (str(found.reads[0]), str(found.writes[0])) == ("mlp_in.5", "mlp_out.5")


def test_llama_scope_scales_what_it_reads_and_writes(numbers: dict[str, Tensor], tmp_path: Path) -> None:
    We, be, Wd, bd = (numbers[key] for key in ("We", "be", "Wd", "bd"))
    about = {
        "d_model": D, "d_sae": N, "act_fn": "jumprelu", "jump_relu_threshold": 0.7, "hook_point_in": "blocks.4.hook_mlp_in",
        "hook_point_out": "blocks.4.hook_mlp_out", "dataset_average_activation_norm": {"in": 5.0, "out": 2.0},
    }  # fmt: skip
    (tmp_path / "hyperparams.json").write_text(json.dumps(about))
    tensors = {"encoder.weight": We, "encoder.bias": be, "decoder.weight": Wd.T, "decoder.bias": bd}
    save(tmp_path / "checkpoints", tensors, "final.safetensors")

    def codes(x: Tensor) -> Tensor:
        return jump(x * (D**0.5 / 5.0) @ We.T + be, 0.7)

    same(tmp_path, codes, lambda x: (codes(x) @ Wd + bd) * 2.0 / D**0.5)


def test_qwen_scope_takes_its_k_from_the_repository(numbers: dict[str, Tensor], tmp_path: Path) -> None:
    We, be, Wd, bd = (numbers[key] for key in ("We", "be", "Wd", "bd"))
    folder = tmp_path / f"SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}"
    save(folder, {"W_enc": We, "b_enc": be, "W_dec": Wd.T, "b_dec": bd}, "layer3.sae.pt")

    def codes(x: Tensor) -> Tensor:
        return topk(x @ We.T + be)

    same(folder / "layer3.sae.pt", codes, lambda x: codes(x) @ Wd + bd)
    assert str(load_any(folder, allow_pickle=True).reads[0]) == "resid_post.3"


@pytest.mark.parametrize("turned", [False, True])
def test_circuit_tracers_layers(turned: bool, numbers: dict[str, Tensor], tmp_path: Path) -> None:
    We, be, Wd, bd, skip = (numbers[key] for key in ("We", "be", "Wd", "bd", "skip"))
    (tmp_path / "config.yaml").write_text("feature_input_hook: mlp.hook_in\nfeature_output_hook: mlp.hook_out\n")
    tensors = {"W_enc": We, "b_enc": be, "W_dec": Wd.T if turned else Wd, "b_dec": bd, "W_skip": skip}
    save(tmp_path, tensors, "layer_0.safetensors")

    def codes(x: Tensor) -> Tensor:
        return torch.relu(x @ We.T + be)

    same(tmp_path, codes, lambda x: codes(x) @ Wd + bd + x @ skip.T)


def test_a_cross_layer_transcoder_by_its_layers(tmp_path: Path) -> None:
    encoders = [torch.randn(N, D) for _ in range(LAYERS)]
    b_enc, b_dec = torch.randn(LAYERS, N), torch.randn(LAYERS, D)
    decoders = [torch.randn(N, LAYERS - layer, D) for layer in range(LAYERS)]
    (tmp_path / "config.yaml").write_text("feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n")
    for i in range(LAYERS):
        save(
            tmp_path,
            {f"W_enc_{i}": encoders[i], f"b_enc_{i}": b_enc[i], f"b_dec_{i}": b_dec[i]},
            f"W_enc_{i}.safetensors",
        )
        save(tmp_path, {f"W_dec_{i}": decoders[i]}, f"W_dec_{i}.safetensors")
    made = load_any(tmp_path)
    x = torch.randn(LAYERS, 20, D)
    codes = [torch.relu(x[i] @ encoders[i].T + b_enc[i]) for i in range(LAYERS)]
    written = [sum(codes[i] @ decoders[i][:, m - i] for i in range(m + 1)) + b_dec[m] for m in range(LAYERS)]
    torch.testing.assert_close(made.encode(x).dense(), torch.cat(codes, -1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.decode(made.encode(x)), torch.stack(written), atol=1e-4, rtol=1e-5)
    assert [str(s) for s in made.reads] == ["resid_mid.0", "resid_mid.1", "resid_mid.2"]
