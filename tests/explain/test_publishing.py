"""What others published is read and written again without loss, and a catalogue comes back from being published."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from microtome.core.errors import Refusal
from microtome.explain.neuronpedia import Export, Sentence, read_export, write_export
from microtome.explain.publishing import catalogued, feature, published
from microtome.explain.saedashboard import BATCH, batches, read_batches, write_batches
from microtome.store.catalog import Catalog, exemplar_groups
from microtome.store.notes import Notes
from microtome.store.records.saedashboard import Batch, Feature, read_batch
from tests import toys
from tests.explain.test_catalog import VOCABULARY, built

CREATED = "2025-01-01T00:00:00"
FILES = ("saedashboard_batch-0.json", "saedashboard_batch-1.json")


@pytest.fixture
def real(shared_data: Path) -> list[Path]:
    return [shared_data / "neuronpedia" / name for name in FILES]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    logits = torch.randn(60, toys.VOCAB, generator=torch.Generator().manual_seed(1))
    return built(tmp_path_factory.mktemp("catalog"), logits=logits, about="a text")


def test_real_batches_are_written_again_as_they_were(real: list[Path], tmp_path: Path) -> None:
    for path in real:
        (written,) = write_batches(read_batch(path), tmp_path / path.stem)
        assert json.loads(written.read_text()) == json.loads(path.read_text())


def test_real_batches_pass_through_an_export_of_neuronpedia(real: list[Path], tmp_path: Path) -> None:
    for path in real:
        batch = read_batch(path)
        folder = write_export(Export(batch, (Sentence(0, "brigades", "auto", "a model"),)), tmp_path, created=CREATED)
        assert folder == tmp_path / "gpt2-small" / "0-res-jb"
        again = read_export(folder)
        assert again.batch.features == batch.features and again.batch.source == batch.source
        assert len(again.sentences) == (batch.features[0].feature_index == 0)


def test_an_export_is_the_same_bytes_twice(real: list[Path], tmp_path: Path) -> None:
    batch = read_batch(real[0])
    one, other = (write_export(Export(batch), tmp_path / name, created=CREATED) for name in "ab")
    files = sorted(path.relative_to(one) for path in one.rglob("*.jsonl*"))
    assert len(files) == 7 and all((one / f).read_bytes() == (other / f).read_bytes() for f in files)


def test_an_export_has_the_names_that_neuronpedia_reads(real: list[Path], tmp_path: Path) -> None:
    folder = write_export(Export(read_batch(real[0])), tmp_path, created=CREATED)
    with gzip.open(folder / "activations" / "batch-0.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    wanted = {"id", "tokens", "index", "layer", "modelId", "maxValue", "maxValueTokenIndex", "minValue", "values",
              "creatorId", "createdAt", "binMin", "binMax", "binContains", "qualifyingTokenIndex"}  # fmt: skip
    assert all(wanted <= row.keys() for row in rows) and len({row["id"] for row in rows}) == len(rows)
    assert all(row["values"][row["maxValueTokenIndex"]] == row["maxValue"] == max(row["values"]) for row in rows)


def test_a_catalogue_of_real_batches_shows_what_they_say(real: list[Path], tmp_path: Path) -> None:
    batch = read_batch(real[0])
    found = catalogued(batch, tmp_path / "catalog", [Sentence(1, "nothing in particular", "auto", "a model")])
    for one in batch.features:
        shown, strongest = list(found.examples(one.feature_index)), [a for a in one.activations if a.strongest]
        top = [e for e in shown if e.group == "top"]
        for example, activation in zip(top, strongest, strict=False):
            assert example.tokens[1 : len(activation.tokens) + 1] == activation.tokens
            assert example.position == activation.qualifying_token_index + 1
            np.testing.assert_allclose(example.values[1 : len(activation.values) + 1], activation.values, rtol=2**-10)
        row = one.feature_index
        assert found.components["count"][row] == sum(one.freq_hist_data_bar_heights)
        words = [found.vocabulary[t] for t in found.components["logits_top"][row]]
        assert words == one.pos_str[:10]
    assert [e.text for e in Notes(tmp_path / "catalog" / "notes.sqlite").of(1)] == ["nothing in particular"]


def test_a_catalogue_comes_back_from_being_published(made: Catalog, tmp_path: Path) -> None:
    """Passages, words, densities and histograms; not the activations that no passage shows."""
    batch = published(made, range(len(made)), model="toy", layer=0, name="res")
    write_batches(batch, tmp_path / "batches")
    export = write_export(Export(read_batches(tmp_path / "batches")), tmp_path, created=CREATED)
    again = catalogued(read_export(export).batch, tmp_path / "catalog")
    groups = exemplar_groups()
    for component in range(len(made)):
        pairs = list(zip(made.examples(component), again.examples(component), strict=True))
        strengths = {(a.group, a.values[a.position]) for a, _ in pairs if a.group != "top"}
        if len(strengths) == len({strength for _, strength in strengths}):  # fifths of one strength become one bin
            assert all(a.group == b.group for a, b in pairs)
        assert all(a.position == b.position and a.tokens[1:] == b.tokens[1:] and a.values == b.values for a, b in pairs)
        assert len(pairs) <= len(groups)
        one, other = feature(made, component), feature(again, component)
        assert one.pos_str == other.pos_str and one.neg_values == pytest.approx(other.neg_values)
        assert one.freq_hist_data_bar_heights == other.freq_hist_data_bar_heights
        assert one.freq_hist_data_bar_values == pytest.approx(other.freq_hist_data_bar_values, rel=1e-4)
        assert one.frac_nonzero == other.frac_nonzero
    assert set(again.vocabulary) - {""} <= set(VOCABULARY)


def test_many_features_are_spread_over_files_and_read_in_order(tmp_path: Path) -> None:
    features = [Feature(feature_index=n) for n in range(10 * BATCH + 3)]
    write_batches(Batch(model_id="m", layer=2, sae_set="s", features=features), tmp_path)
    assert len(batches(tmp_path)) == 11
    assert [f.feature_index for f in read_batches(tmp_path).features] == list(range(len(features)))


# ---------------------------------------------------------------- what is refused


def test_what_is_no_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="holds no batch-0.json; give the folder that SAEDashboard's runner wrote"):
        read_batches(tmp_path)
    (tmp_path / "batch-0.json").write_text('{"model_id": "m", "layer": 0, "sae_set": "s"}')
    with pytest.raises(Refusal, match="is no batch of SAEDashboard: features: field required"):
        read_batches(tmp_path)


def test_two_dictionaries_in_one_folder_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        (tmp_path / f"batch-{number}.json").write_text(
            json.dumps({"model_id": "m", "layer": 0, "sae_set": name, "features": []})
        )
    with pytest.raises(Refusal, match="holds features of m/0-a and of m/0-b"):
        read_batches(tmp_path)


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="has no folder features; give one dictionary's of Neuronpedia's export"):
        read_export(tmp_path)
    (tmp_path / "features").mkdir()
    with pytest.raises(Refusal, match="holds no feature"):
        read_export(tmp_path)
    (tmp_path / "features" / "batch-0.jsonl").write_text("{half")
    with pytest.raises(Refusal, match="line 1, is not JSON; fetch the file again"):
        read_export(tmp_path)
