"""The catalogue says of every component exactly what a look at all activations at once would say."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from microtome.core.component import Dictionary
from microtome.core.errors import NotFinite, Refusal
from microtome.core.linear import Coordinates
from microtome.core.site import Site
from microtome.data.windows import Text
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.sae import SAE
from microtome.explain import catalog as making
from microtome.explain.catalog import Cataloguer, catalog, share
from microtome.models.hooked import HookedModel
from microtome.store.catalog import Catalog, exemplar_groups
from microtome.store.merging import merge
from microtome.store.sketches import BINS, QUANTILES, SAMPLE, TOP
from tests import toys

RESID, WIDTH, CONTEXT, WINDOWS = Site("resid_post.0"), 60, 9, 200
VOCABULARY = [f"t{i}" for i in range(toys.VOCAB)]


def text() -> Text:
    ids = torch.randint(toys.VOCAB, (WINDOWS, CONTEXT), generator=torch.Generator().manual_seed(0))
    document, labels = np.arange(WINDOWS) // 50, np.random.default_rng(0).random((WINDOWS, CONTEXT, 2)) < 0.3
    return Text(ids, document, ["a", "b", "c", "d"], labels)


def sae() -> SAE:
    made = SAE(RESID, toys.WIDTH, WIDTH, TopK(4), generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    made.b_enc[5] = -1000.0  # dead
    return made


@pytest.fixture(scope="module")
def all_at_once() -> np.ndarray:
    """Every activation, with position 0 silenced."""
    trace = toys.residual().run(toys.Tokens.of(text().tokens), read=[RESID])
    values = trace.codes(sae()).dense().numpy().copy()
    values[:, 0] = 0
    return values


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return built(tmp_path_factory.mktemp("catalog"))


def built(
    folder: Path, network: HookedModel | None = None, dictionary: Dictionary | None = None, **settings: object
) -> Catalog:
    return catalog(network or toys.residual(), dictionary or sae(), text(), folder, vocabulary=VOCABULARY, **settings)


def test_counts_sums_and_maxima_are_those_of_brute_force(made: Catalog, all_at_once: np.ndarray) -> None:
    flat, rows = all_at_once.reshape(-1, WIDTH).astype(np.float64), made.components
    assert np.array_equal(rows["count"], (flat != 0).sum(0)) and rows["count"][5] == 0
    np.testing.assert_allclose(rows["sum"], flat.sum(0), rtol=1e-5)
    np.testing.assert_allclose(rows["sum_squares"], (flat**2).sum(0), rtol=1e-5)
    np.testing.assert_allclose(rows["max"], flat.max(0), rtol=1e-5)
    np.testing.assert_allclose(rows["density"], (flat != 0).sum(0) / (WINDOWS * (CONTEXT - 1)), rtol=1e-5)


def test_a_histogram_counts_every_firing_in_equal_steps_from_zero(made: Catalog, all_at_once: np.ndarray) -> None:
    for component in range(WIDTH):
        fired = all_at_once[..., component][all_at_once[..., component] > 0]
        expected = np.histogram(fired, BINS, (0, made.components["histogram_end"][component]))[0]
        assert np.abs(made.components["histogram"][component] - expected).sum() <= 2  # rounding at the edges
        assert made.components["histogram"][component].sum() == len(fired)


def test_columns_hold_every_activation_in_the_order_of_the_text(made: Catalog, all_at_once: np.ndarray) -> None:
    flat = all_at_once.reshape(-1, WIDTH)
    for component in range(WIDTH):
        column = made.column(component)
        assert np.array_equal(column.token, np.flatnonzero(flat[:, component]))
        np.testing.assert_allclose(column.value, flat[column.token, component], rtol=2**-10)


def test_position_0_is_never_counted(made: Catalog) -> None:
    assert all((made.column(c).token % CONTEXT != 0).all() for c in range(WIDTH))
    assert made.tokens_seen == WINDOWS * (CONTEXT - 1) == made.manifest["tokens"]


def test_the_top_examples_are_the_strongest_of_different_windows(made: Catalog, all_at_once: np.ndarray) -> None:
    best = all_at_once.max(1)  # of every window
    for component in range(WIDTH):
        tokens = made.components["exemplars"][component, :TOP]
        tokens = tokens[tokens >= 0]
        windows = tokens // CONTEXT
        expected = np.sort(best[:, component][best[:, component] > 0])[::-1][:TOP]
        assert len(set(windows.tolist())) == len(windows) == len(expected)
        np.testing.assert_allclose(all_at_once.reshape(-1, WIDTH)[tokens, component], expected, rtol=1e-6)


def test_examples_by_quantile_fall_and_come_from_near_their_fifth_of_the_ranks(
    made: Catalog, all_at_once: np.ndarray
) -> None:
    """Fifths are told from a sample of the windows, and are exact where there are no more of them."""
    flat, best = all_at_once.reshape(-1, WIDTH), all_at_once.max(1)
    groups, error = np.array(exemplar_groups()), 4 * (0.25 / SAMPLE) ** 0.5
    for component in np.argsort(-made.components["count"])[:10]:
        ranked = np.sort(best[:, component][best[:, component] > 0])[::-1]
        slack = error if len(ranked) > SAMPLE else 0.0
        for number in range(QUANTILES):
            tokens = made.components["exemplars"][component][groups == f"q{QUANTILES - number}"]
            values = flat[tokens[tokens >= 0], component]
            share = np.array([(ranked > value).mean() for value in values])
            assert (share >= number / QUANTILES - slack - 1 / len(ranked)).all()
            assert (share <= (number + 1) / QUANTILES + slack).all() and (np.diff(values) <= 0).all()


def test_an_example_is_its_window_with_every_firing_in_it(made: Catalog, all_at_once: np.ndarray) -> None:
    examples = list(made.examples(3))
    assert examples[0].group == "top" and examples[0].values[examples[0].position] == max(
        e.values[e.position] for e in examples
    )
    for example in examples:
        np.testing.assert_allclose(example.values, all_at_once[example.window, :, 3], rtol=2**-10)
        assert example.tokens == [VOCABULARY[i] for i in text().tokens[example.window]]
        assert example.document == "abcd"[example.window // 50]
    assert list(made.examples(5)) == []


def test_spilling_many_times_is_spilling_once(
    network: HookedModel, made: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "SPILL", 100)
    again = built(tmp_path / "again", network, batch=7)
    for name, rows in made.components.items():
        np.testing.assert_allclose(again.components[name], rows, rtol=1e-4, atol=1e-5, err_msg=name)
    assert np.array_equal(again.column(3).token, made.column(3).token)


def test_many_components_are_spread_over_files(
    network: HookedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SAE(RESID, toys.WIDTH, 1100, TopK(4), generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    found = built(tmp_path / "wide", network, made)
    assert len(list((tmp_path / "wide").glob("columns-*"))) == 3 and len(found) == 1100
    assert sum(len(found.column(c).token) for c in range(1100)) == found.components["count"].sum()
    assert not list((tmp_path / "wide").glob(".*"))


def test_neighbours_are_the_nearest_in_what_they_write(made: Catalog) -> None:
    unit = torch.nn.functional.normalize(sae().directions().write[:, 0], dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-2)
    np.testing.assert_allclose(
        made.components["neighbour_cosine"], cosine.topk(10, 1).values.numpy(), rtol=1e-4, atol=1e-5
    )
    assert made.components["position"].shape == (WIDTH, 2)


def test_the_same_catalogue_is_made_twice(network: HookedModel, made: Catalog, tmp_path: Path) -> None:
    torch.manual_seed(77)
    again = built(tmp_path / "again", network)
    assert all(np.array_equal(again.components[name], rows) for name, rows in made.components.items())


def test_promoted_and_suppressed_tokens_are_the_ends_of_the_logits(network: HookedModel, tmp_path: Path) -> None:
    logits = torch.randn(WIDTH, toys.VOCAB)
    rows = built(tmp_path / "c", network, logits=logits).components
    np.testing.assert_allclose(rows["logits_top_value"], logits.topk(10, 1).values)
    np.testing.assert_allclose(rows["logits_bottom_value"], logits.topk(10, 1, largest=False).values)


def test_labels_and_documents_are_kept(made: Catalog, network: HookedModel, tmp_path: Path) -> None:
    found = built(tmp_path / "c", network, labels=("in a string", "a name"), about="a text")
    assert found.manifest["labels"] == ["in a string", "a name"] and found.manifest["text"] == "a text"
    assert found.windows["labels"].shape == (WINDOWS, CONTEXT, 2)


# ---------------------------------------------------------------- what is refused


def test_values_that_are_not_finite_are_refused(network: HookedModel, tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match="the dictionary's activations are not finite"):
        built(tmp_path, network, replace_with_infinity())


def replace_with_infinity() -> Dictionary:
    made = Coordinates(RESID, toys.WIDTH)
    made.encode = lambda x: replace(Coordinates.encode(made, x), values=x * torch.inf)
    return made


def test_values_too_large_for_storage_are_kept_as_the_largest(network: HookedModel, tmp_path: Path) -> None:
    made = Coordinates(RESID, toys.WIDTH)
    made.encode = lambda x: replace(Coordinates.encode(made, x), values=x.abs() * 1e6)
    column = built(tmp_path / "c", network, made).column(0)
    assert np.isfinite(column.value).all() and column.value.max() == np.finfo(np.float16).max


def test_a_folder_with_other_things_in_it_is_left_alone(network: HookedModel, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(Refusal, match="is no catalogue .*'thesis.tex'.*give a folder that is empty or not there yet"):
        built(tmp_path, network)
    assert (tmp_path / "thesis.tex").exists()


def test_a_catalogue_that_was_cut_off_is_refused_and_can_be_begun_again(network: HookedModel, tmp_path: Path) -> None:
    (built(tmp_path, network).folder / "manifest.json").unlink()
    with pytest.raises(
        Refusal, match="holds no manifest.json: it is no catalogue, or its writing was cut off; write it again"
    ):
        Catalog(tmp_path)
    (tmp_path / ".spill-000").write_bytes(b"half")
    assert len(built(tmp_path, network)) == WIDTH


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [('{"schema": "x/9"}', "has schema 'x/9'"), ("{", "is damaged; write the catalogue again")],
)
def test_another_schema_and_a_damaged_manifest_are_refused(manifest: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(Refusal, match=sentence):
        Catalog(tmp_path)


@pytest.mark.parametrize("component", [-1, WIDTH])
def test_a_component_outside_the_catalogue_is_refused(made: Catalog, component: int) -> None:
    with pytest.raises(Refusal, match=rf"component {component} is outside 0\.\.59"):
        made.column(component)


# ---------------------------------------------------------------- parts of a text


def part(folder: Path, network: HookedModel, first: int, stop: int) -> Catalog:
    whole = text()
    rows = Text(whole.tokens[first:stop], whole.document[first:stop], whole.documents, whole.labels[first:stop])
    return catalog(network, sae(), rows, folder / f"part-{first}", vocabulary=VOCABULARY, batch=7, first_window=first)


def same_files(one: Catalog, other: Catalog) -> bool:
    names = ("components", "sketches", "windows", "columns-000")
    pairs = [[(c.folder / f"{name}.safetensors").read_bytes() for c in (one, other)] for name in names]
    return all(a == b for a, b in pairs) and one.manifest == other.manifest and one.vocabulary == other.vocabulary


def test_parts_of_a_text_join_to_what_one_pass_over_it_writes(network: HookedModel, tmp_path: Path) -> None:
    whole = part(tmp_path / "whole", network, 0, WINDOWS)
    first, second, third = (part(tmp_path, network, *ends) for ends in ((0, 70), (70, 71), (71, WINDOWS)))
    assert same_files(merge([third, first, second], tmp_path / "at-once"), whole)
    assert same_files(merge([merge([second, first], tmp_path / "two"), third], tmp_path / "in-turn"), whole)


def test_a_part_can_be_looked_at_by_itself(network: HookedModel, all_at_once: np.ndarray, tmp_path: Path) -> None:
    found = part(tmp_path, network, 70, WINDOWS)
    for component in range(WIDTH):
        for example in found.examples(component):
            values = all_at_once[70 + example.window, :, component]
            np.testing.assert_allclose(example.values, values, rtol=2**-10)
            assert values[example.position] == values.max() > 0


@pytest.mark.parametrize("workers", [1, 3, 7])
def test_workers_share_a_text_without_gaps(workers: int) -> None:
    parts = [share(text(), worker, workers) for worker in range(workers)]
    assert sum(len(rows) for rows, _ in parts) == WINDOWS and parts[0][1] == 0
    assert torch.equal(torch.cat([rows.tokens for rows, _ in parts]), text().tokens)
    assert all(a[1] + len(a[0]) == b[1] for a, b in pairwise(parts))


def test_parts_that_do_not_adjoin_are_refused(network: HookedModel, tmp_path: Path) -> None:
    one, other = part(tmp_path, network, 0, 20), part(tmp_path, network, 30, 40)
    with pytest.raises(Refusal, match=r"ends before window 20 and .*part-30 begins with 30: windows are missing"):
        merge([other, one], tmp_path / "joined")
    with pytest.raises(Refusal, match=r"ends before window 20 and .* begins with 0: windows are double"):
        merge([one, one], tmp_path / "joined")
    with pytest.raises(Refusal, match="there are no catalogues to join"):
        merge([], tmp_path / "joined")


def test_parts_of_different_dictionaries_are_refused(network: HookedModel, made: Catalog, tmp_path: Path) -> None:
    other = SAE(RESID, toys.WIDTH, WIDTH, TopK(4), generator=torch.Generator().manual_seed(9)).requires_grad_(False)
    with pytest.raises(Refusal, match="is of another dictionary or vocabulary"):
        merge([made, built(tmp_path / "other", network, other)], tmp_path / "joined")
    few = Cataloguer(sae(), text(), tmp_path / "few", 5).finish(vocabulary=VOCABULARY)
    with pytest.raises(Refusal, match="has components 60 and .*few has 5; join parts of one catalogue"):
        merge([made, few], tmp_path / "joined")
