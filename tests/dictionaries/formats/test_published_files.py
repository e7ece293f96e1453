"""Files that the owning libraries wrote, against the numbers that those libraries computed from them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from microtome.core.rows import Rows
from microtome.dictionaries.formats.registry import FORMATS, find, find_all, load_any, write
from microtome.dictionaries.normalisation import OfToken

SITE = "resid_post.0"  # for the files that do not say
OWN = {  # file: the outputs that its library computed
    "saelens/standard": "saelens_standard", "saelens/topk": "saelens_topk", "saelens/jumprelu": "saelens_jumprelu",
    "saelens/gated": "saelens_gated", "saelens/transcoder": "saelens_transcoder",
    "dictionary_learning/autoencoder": "dictionary_learning_autoencoder", "dictionary_learning/topk":
    "dictionary_learning_topk", "dictionary_learning/gated": "dictionary_learning_gated",
    "dictionary_learning/jumprelu": "dictionary_learning_jumprelu", "sparsify/layers.0": "sparsify_layers.0",
    "openai/relu.pt": "openai_relu", "openai/topk.pt": "openai_topk",
    "gemma_scope_style_params.npz": "saelens_jumprelu",  # the same numbers in another layout
}  # fmt: skip


@pytest.fixture(scope="module")
def fixtures(shared_data: Path) -> Path:
    folder = shared_data / "sae-fixtures"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


def site_for(name: str) -> str | None:
    return SITE if name.endswith((".pt", ".npz")) else None


def golden(fixtures: Path, name: str, width: int) -> tuple[Tensor, Tensor, Tensor]:
    with np.load(fixtures / "golden" / f"{OWN[name]}.npz", allow_pickle=False) as held:
        found = {key: torch.from_numpy(held[key]) for key in held.files}
    if "features" not in found:
        found["features"] = torch.zeros(len(found["x"]), width).scatter(1, found["top_indices"], found["top_acts"])
    return found["x"], found["features"], found["recon"]


def near(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= 1e-5 * b.norm())


@pytest.mark.parametrize("name", OWN)
def test_the_numbers_are_those_of_the_owning_library(name: str, fixtures: Path) -> None:
    made = load_any(fixtures / name, site=site_for(name), allow_pickle=True)
    x, features, recon = golden(fixtures, name, len(made))
    codes, units = made.encode(x).dense(), getattr(made, "normalisation", None)
    if isinstance(units, OfToken):  # our codes carry the token's scale
        codes = codes / units.scale(x)
    assert near(codes, features) and near(made.reconstruct(x), recon)


@pytest.mark.parametrize("name", OWN)
def test_no_doubt_is_raised_about_them(name: str, fixtures: Path) -> None:
    made = load_any(fixtures / name, site=site_for(name), allow_pickle=True)
    x, _, _ = golden(fixtures, name, len(made))
    rows = Rows({str(site): x for site in {*made.reads}}) if made.reads == made.writes else None
    found = find(fixtures / name, site=site_for(name), allow_pickle=True, rows=rows)
    assert found.warnings == () and found.format == ("gemma_scope" if name.endswith("npz") else name.split("/")[0])
    assert rows is None or found.explained_variance > 0.7


@pytest.mark.parametrize("to", [name for name in FORMATS if name != "microtome"])
def test_what_we_write_of_them_is_what_we_read(to: str, fixtures: Path, tmp_path: Path) -> None:
    from microtome.core.errors import Refusal

    written = 0
    for name in OWN:
        made = load_any(fixtures / name, site=site_for(name), allow_pickle=True)
        folder = tmp_path / name.replace("/", "_")
        try:
            write(made, folder, to)
        except Refusal:
            continue
        x, _, _ = golden(fixtures, name, len(made))
        again = load_any(folder, allow_pickle=True)
        assert near(again.reconstruct(x), made.reconstruct(x)) and near(again.encode(x).dense(), made.encode(x).dense())
        written += 1
    assert written or to in ("llama_scope", "qwen_scope", "circuit_tracer", "circuit_tracer_clt")


def test_a_set_of_transcoders_for_circuit_tracer(fixtures: Path, tmp_path: Path) -> None:
    folder = fixtures / "circuit-tracer"
    found = find_all(folder)
    assert [str(f.dictionary.reads[0]) for f in found] == ["mlp_in.0", "mlp_in.1"]
    assert [str(f.dictionary.writes[0]) for f in found] == ["mlp_out.0", "mlp_out.1"]
    write([f.dictionary for f in found], tmp_path, "circuit_tracer")
    for one, other in zip(found, find_all(tmp_path), strict=True):
        assert all(
            torch.equal(x, y)
            for x, y in zip(one.dictionary.state_dict().values(), other.dictionary.state_dict().values(), strict=True)
        )
