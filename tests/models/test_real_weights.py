"""Two trained models: every activation that TransformerLens gives, by its own name."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from microtome.core.inputs import Tokens
from microtome.models.load import load

DATA = os.environ.get("MICROTOME_DATA")
pytestmark = pytest.mark.skipif(
    DATA is None, reason="MICROTOME_DATA names no folder with stories260k-hf and tinystories-656k-hf"
)


@pytest.mark.parametrize("name", ["stories260k-hf", "tinystories-656k-hf"])
def test_every_activation_is_transformerlens_own(name: str) -> None:
    folder = Path(DATA or "") / name
    m, theirs = load(folder), np.load(folder / "transformerlens_cache.npz")
    arrays = {key: torch.tensor(value) for key, value in theirs.items() if key not in ("tokens", "logits")}
    norms = {key for key in arrays if key.endswith(("hook_scale", "hook_normalized"))}
    sites = {key: m.site(key).name for key in arrays if key not in norms}
    trace = m.run(Tokens.of(torch.tensor(theirs["tokens"])), read=[*m.sites("*"), "logits"])
    for key, site in sites.items():
        assert off(trace[site], arrays[key]) < 1e-4, key
    assert off(trace["logits"], torch.tensor(theirs["logits"])) < 1e-4
    for key in (k for k in norms if k.endswith("hook_normalized")):
        layer = key.split(".")[1]
        read, gain = {
            "ln1": (f"attn_in.{layer}", f"model.layers.{layer}.input_layernorm"),
            "ln2": (f"mlp_in.{layer}", f"model.layers.{layer}.post_attention_layernorm"),
            "ln_final": ("final_norm", "model.norm"),
        }[key.split(".")[-2]]
        assert off(trace[read], arrays[key] * m.module.get_submodule(gain).weight) < 1e-4, key


def off(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest error over the scale. Masked scores are minus infinity there, and the lowest number here."""
    seen = theirs > -1e4
    return float(((ours - theirs)[seen].abs().max() / theirs[seen].abs().max()).detach())


@pytest.mark.parametrize("name", ["stories260k-hf", "tinystories-656k-hf"])
def test_a_trained_model_is_verified(name: str) -> None:
    found = load(Path(DATA or "") / name, verify=False).verify()
    assert found.ok and found.worst < 1e-4, found


def test_a_story_goes_on_the_same_with_and_without_a_cache() -> None:
    m = load(Path(DATA or "") / "stories260k-hf")
    said = [m.generate("Once upon a time, there was a", tokens=12, cache=cache).ids.tolist() for cache in (True, False)]
    assert said[0] == said[1]
