"""What somebody points at is recognised, or refused with every format's reason."""

from pathlib import Path

import numpy as np
import pytest
import torch

from microtome.core.errors import Refusal
from microtome.dictionaries.formats import registry
from microtome.dictionaries.formats.hub import patterns
from microtome.dictionaries.formats.registry import FORMATS, find_all, load_any, write
from tests.dictionaries.formats import examples
from tests.dictionaries.formats.examples import assert_same


def test_what_no_format_knows_is_refused_with_every_reason(tmp_path: Path) -> None:
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(Refusal, match="is in no known format") as refused:
        load_any(tmp_path)
    said = str(refused.value)
    assert all(f"not {name}, for " in said for name in FORMATS) and "\n" not in said
    assert "not saelens, for there is no sae_weights.safetensors" in said
    assert "not sparsify, for there is no sae.safetensors" in said


def test_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="there is nothing at"):
        load_any(tmp_path / "gone")
    with pytest.raises(Refusal, match="there is nothing at gone; give a folder or a file"):
        load_any("gone")


def test_the_hub_is_asked_only_where_nothing_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []
    write(examples.sae("relu"), tmp_path / "owner" / "sae", "saelens")

    def fetched(name: str, *, allow_pickle: bool) -> Path:
        asked.append((name, allow_pickle))
        return tmp_path / "owner" / "sae"

    monkeypatch.setattr(registry, "fetched", fetched)
    monkeypatch.chdir(tmp_path)
    here, there = load_any("owner/sae"), load_any("owner/another")
    assert_same(here, there)
    assert asked == [("owner/another", False)]


def test_only_what_is_needed_is_fetched() -> None:
    assert patterns("", ("*.json",)) == ["*.json"]
    assert patterns("a/b/params.npz", ("*.json",)) == ["a/b/params.npz"]
    assert patterns("a/b", ("*.json", "*.npz")) == ["a/b/*.json", "a/b/*.npz", "a/config.json", "config.json"]


@pytest.mark.parametrize("name", ["dictionary_learning", "openai", "qwen_scope"])
def test_pickles_are_read_only_when_they_are_allowed(name: str, tmp_path: Path) -> None:
    made = examples.sae("topk", "layer_norm" if name == "openai" else "none")
    write(made, tmp_path, name)
    with pytest.raises(Refusal, match=r"is a pickle, which is not read unasked; .*allow_pickle=True"):
        load_any(tmp_path)
    assert_same(made, load_any(tmp_path, allow_pickle=True))


def test_a_pickle_that_would_run_something_is_refused_even_then(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"encoder.weight": Trap()}, tmp_path / "0.pt")
    with pytest.raises(Refusal, match="holds more than tensors and plain values, or is damaged"):
        load_any(tmp_path / "0.pt", allow_pickle=True)
    assert not (tmp_path / "sprung").exists()


def test_an_archive_of_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(Refusal, match="is damaged; fetch or save it again"):
        load_any(tmp_path)


def test_files_that_are_cut_off_or_of_other_shapes_are_refused(tmp_path: Path) -> None:
    write(examples.sae("relu"), tmp_path / "cut", "saelens")
    path = tmp_path / "cut" / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(Refusal, match="is damaged; fetch or save it again"):
        load_any(tmp_path / "cut")
    write(examples.sae("relu"), tmp_path / "words", "saelens")
    (tmp_path / "words" / "cfg.json").write_text("[]")
    with pytest.raises(Refusal, match="holds a list, where a description is an object"):
        load_any(tmp_path / "words")


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no format 'saelense'; known: microtome, saelens, sparsify"):
        write(examples.sae("relu"), tmp_path, "saelense")


def test_what_a_training_left_beside_dictionaries_is_passed_over(tmp_path: Path) -> None:
    made = examples.sae("topk", "none")
    write(made, tmp_path, "sparsify")
    torch.save({"step": 3}, tmp_path / "optimizer_0.pt")
    assert_same(made, load_any(tmp_path))


def test_a_folder_may_be_named_like_a_file(tmp_path: Path) -> None:
    made = examples.sae("jumprelu")
    for name in ("layer3.sae.pt", "params.npz"):
        write(made, tmp_path / name, "gemma_scope")
        assert_same(made, load_any(tmp_path / name))


def test_dictionaries_in_folders_below_are_found_and_chosen_by_site(tmp_path: Path) -> None:
    made = {site: examples.sae("topk", "none", site) for site in ("resid_post.0", "mlp_out.1")}
    write(list(made.values()), tmp_path, "sparsify")
    assert {str(f.dictionary.reads[0]) for f in find_all(tmp_path)} == set(made)
    for site, one in made.items():
        assert_same(one, load_any(tmp_path, site=site))
    with pytest.raises(Refusal, match=r"holds 2 dictionaries, which read .* choose one by its site"):
        load_any(tmp_path)
