"""Loading says what is wrong in one sentence, soon, and is quiet when nothing is."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.models.load import load
from tests.models.zoo import Convolutions, batch, model, module


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    module("llama").save_pretrained(folder)
    return folder


def test_a_folder_without_a_tokenizer_loads_and_is_verified(saved: Path) -> None:
    m = load(saved)
    assert m.tokenizer is None and "mlp_out_raw.0" in m.withdrawn
    assert torch.equal(m.run(batch("llama"))["logits"], model("llama").run(batch("llama"))["logits"])
    with pytest.raises(Refusal, match="has no tokenizer"):
        m.run("some text")


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_masked_language_models_and_classifiers(name: str, tmp_path: Path) -> None:
    module(name).save_pretrained(tmp_path)
    assert type(load(tmp_path).module) is type(module(name))


def test_loading_is_quiet(saved: Path) -> None:
    code = f"from microtome.models.load import load; load({str(saved)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_transformers_is_imported_only_when_needed() -> None:
    code = "import sys, microtome.models.load; assert 'transformers' not in sys.modules and 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pickled_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(Refusal, match=r"no weights in safetensors form \(pytorch_model\.bin\).*convert them"):
        load(tmp_path)


def test_code_in_a_folder_is_never_run(saved: Path, tmp_path: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')")
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    with pytest.raises(Refusal, match="could not load"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("/no/such/folder", "there is no such folder, and it cannot be a hub name"),
        ("nobody-has/this-model-0", "there is no such folder, and the hub did not give it"),
    ],
)
def test_an_unknown_name_is_refused_soon(name: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    load(torch.nn.Linear(1, 1))
    started = time.monotonic()
    with pytest.raises(Refusal, match=sentence):
        load(name)
    assert time.monotonic() - started < 5


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"has no config\.json"):
        load(tmp_path)


def test_places_of_your_own() -> None:
    m = load(Convolutions(), sites={"features": ("4", "out", "batch d"), "pixels": ("0", "in", "batch d y x")})
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(m.run(x, read=["pixels"])["pixels"], x)
    assert m.site("features").axes == "batch d"
