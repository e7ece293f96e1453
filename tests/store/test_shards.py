"""Activations on disk: what the manifest lists is whole, and a harvest that stopped goes on to the same rows."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from torch import Tensor

from microtome.core.errors import NotFinite, Refusal
from microtome.core.site import Site
from microtome.data.windows import Window
from microtome.models.hooked import HookedModel
from microtome.store import shards
from microtome.store.harvest import harvest, harvesting
from microtome.store.shards import Activations, ShardWriter
from tests import toys

SITE = Site("resid_post.0")
ABOUT = {"sites": ["resid_post.0"]}


def numbered(rows: int, width: int = 2) -> Tensor:
    """Rows that say which they are, exactly also in bfloat16."""
    return torch.stack((torch.arange(rows) // 128, torch.arange(rows) % 128), 1).float()[:, :width]


def written(folder: Path, rows: int = 300, each: int = 50, per_shard: int = 120) -> Activations:
    writer = ShardWriter(folder, ABOUT, rows_per_shard=per_shard)
    for part in numbered(rows).split(each):
        writer.append({SITE.name: part}, 1)
    writer.finish()
    return Activations(folder)


def numbers(x: Tensor) -> list[int]:
    return (x[:, 0] * 128 + x[:, 1]).int().tolist()


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    found = written(tmp_path)
    assert len(found) == 300 and found.width == 2 and len(found.shards) == 2
    assert numbers(found.rows(torch.arange(300))) == list(range(300))
    assert numbers(found.rows(torch.tensor([299, 0, 150, 149, 0]))) == [299, 0, 150, 149, 0]


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 70), st.integers(1, 3), st.integers(0, 5))
def test_each_row_comes_once_in_an_epoch_and_each_epoch_in_another_order(size: int, epochs: int, seed: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = written(Path(folder), rows=200)
        each = list(found.batches(size, epochs=epochs, seed=seed))
    count = 200 // size
    assert len(each) == epochs * count == found.batches_in(epochs, size) and all(len(b) == size for b in each)
    orders = [numbers(torch.cat(each[e * count : (e + 1) * count])) for e in range(epochs)]
    for order in orders:
        assert len(set(order)) == len(order) == count * size
    assert len({tuple(order) for order in orders}) == epochs


@pytest.mark.parametrize("start", [0, 1, 5, 6, 11, 18])
def test_batches_from_number_n_on_continue_the_same_sequence(start: int, tmp_path: Path) -> None:
    found = written(tmp_path)
    whole, rest = (list(found.batches(50, epochs=3, seed=2, start=n)) for n in (0, start))
    assert len(whole) == 18 and len(rest) == 18 - start
    assert all(torch.equal(one, other) for one, other in zip(rest, whole[start:], strict=True))


def test_different_seeds_give_different_orders_and_a_sample_has_each_row_at_most_once(tmp_path: Path) -> None:
    found = written(tmp_path)
    assert not torch.equal(next(found.batches(50, seed=0)), next(found.batches(50, seed=1)))
    sample = numbers(found.sample(200, seed=3))
    assert len(set(sample)) == 200 and numbers(found.sample(200, seed=3)) == sample
    assert len(found.sample(10_000)) == 300


def test_fewer_rows_than_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        Refusal, match="300 rows are fewer than one batch of 301; harvest more tokens or lower the batch"
    ):
        next(written(tmp_path).batches(301))


def test_a_write_that_was_cut_off_leaves_whole_shards_and_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, real = ShardWriter(tmp_path, ABOUT, rows_per_shard=100), shards.save_file
    writer.append({SITE.name: numbered(120)}, 3)

    def full(tensors: dict, path: Path) -> None:
        real(tensors, path)
        path.write_bytes(path.read_bytes()[:64])
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(shards, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as stopped:
        writer.append({SITE.name: numbered(240)[120:]}, 3)
    assert stopped.value.errno == 28 and stopped.value.filename == str(tmp_path / "shard-00001.safetensors")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["manifest.json", "shard-00000.safetensors"]
    assert numbers(Activations(tmp_path).rows(torch.arange(120))) == list(range(120))
    monkeypatch.undo()
    again = ShardWriter(tmp_path, ABOUT, rows_per_shard=100)
    assert again.done == 3 and not again.finished
    again.append({SITE.name: numbered(240)[120:]}, 3)
    again.finish()
    assert numbers(Activations(tmp_path).rows(torch.arange(240))) == list(range(240))


def test_a_folder_of_another_harvest_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(Refusal, match="holds activations of something else; choose another folder, or delete that one"):
        ShardWriter(tmp_path, {"sites": ["resid_post.1"]})


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda f: (f / "manifest.json").unlink(), "holds no activations; harvest some first"),
        (lambda f: (f / "manifest.json").write_text('{"schema": "x/2"}'), "has schema 'x/2'; this version reads"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is damaged; delete .* and harvest again"),
        (
            lambda f: (f / "shard-00001.safetensors").unlink(),
            "shard-00001.safetensors is missing; delete .* and harvest again",
        ),
        (lambda f: (f / "shard-00001.safetensors").write_bytes(b"\x09" * 30), "shard-00001.safetensors is damaged"),
    ],
)
def test_a_damaged_harvest_is_answered_in_a_sentence(spoil: object, sentence: str, tmp_path: Path) -> None:
    written(tmp_path)
    spoil(tmp_path)
    with pytest.raises(Refusal, match=sentence):
        Activations(tmp_path)


# ---------------------------------------------------------------- harvesting


def windows(count: int = 20, context: int = 9) -> Iterator[Window]:
    ids = torch.randint(toys.VOCAB, (count, context), generator=torch.Generator().manual_seed(0))
    return (Window(row.numpy(), "a text", torch.zeros(context, 0, dtype=torch.bool).numpy()) for row in ids)


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_harvest_that_was_stopped_goes_on_to_the_same_rows(network: HookedModel, stop: int, tmp_path: Path) -> None:
    whole = harvest(network, windows(), SITE, 150, tmp_path / "whole")
    found = harvesting(network, windows(), SITE, 150, tmp_path / "parts", batch=4)
    for _ in range(stop):
        next(found)
    found.close()  # as an interrupt does
    assert len(Activations(tmp_path / "parts")) == 4 * 8 * stop
    for progress in harvesting(network, windows(), SITE, 150, tmp_path / "parts", batch=4):
        assert progress.of == 150
    parts = Activations(tmp_path / "parts")
    assert len(parts) == len(whole) == 150 and parts.manifest["finished"]
    torch.testing.assert_close(parts.rows(torch.arange(150)), whole.rows(torch.arange(150)), rtol=2**-7, atol=0)
    assert [p.rows for p in harvesting(network, windows(), SITE, 150, tmp_path / "parts")] == [150]


def test_a_harvest_that_stopped_with_all_its_rows_only_closes(network: HookedModel, tmp_path: Path) -> None:
    found = harvesting(network, windows(), SITE, 32, tmp_path, batch=4)
    next(found)
    found.close()
    assert list(harvesting(network, windows(), SITE, 32, tmp_path, batch=4)) == []
    assert Activations(tmp_path).manifest["finished"] and len(Activations(tmp_path).shards) == 1


def test_position_0_is_left_out_and_a_short_text_gives_what_it_has(network: HookedModel, tmp_path: Path) -> None:
    found = harvest(network, windows(3), SITE, 10**6, tmp_path)
    ids = torch.stack([torch.from_numpy(w.tokens) for w in windows(3)])
    expected = network.run(toys.Tokens.of(ids), read=[SITE])[SITE][:, 1:].flatten(0, 1)
    torch.testing.assert_close(found.rows(torch.arange(24)), expected, rtol=0.1, atol=0.1)
    assert len(found) == 24


def test_the_layers_after_the_site_are_never_run(tmp_path: Path) -> None:
    network = toys.residual()

    def never(*_: object) -> None:
        raise AssertionError("the last layer was run")

    network.module.layers[1].register_forward_pre_hook(never)
    assert len(harvest(network, windows(4), SITE, 100, tmp_path)) == 32


def test_values_that_are_not_finite_stop_the_harvest_and_what_came_before_is_kept(tmp_path: Path) -> None:
    network = toys.residual()
    calls = []

    def spoil(_: torch.nn.Module, __: tuple, out: Tensor) -> Tensor:
        calls.append(1)
        return out.index_fill(1, torch.tensor([2]), torch.inf) if len(calls) == 3 else out

    network.module.layers[0].register_forward_hook(spoil)
    with pytest.raises(
        NotFinite, match="resid_post.0 holds values that are not finite in window 8, place 2; choose another site"
    ):
        list(harvesting(network, windows(), SITE, 10**6, tmp_path, batch=4))
    assert len(Activations(tmp_path)) == 2 * 4 * 8


@pytest.mark.parametrize(
    "site", [Site("logits", "batch head query key"), Site("logits", "pos d"), Site("logits", "batch pos")]
)
def test_a_site_without_one_vector_for_each_position_is_refused(
    network: HookedModel, site: Site, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match="choose a site with one vector for each position, such as resid_post"):
        next(harvesting(network, windows(), site, 100, tmp_path))


def test_nothing_to_harvest_is_refused(network: HookedModel, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="nothing was harvested: the text is empty, or shorter than one context"):
        harvest(network, iter(()), SITE, 100, tmp_path)


def test_the_manifest_is_never_ahead_of_the_bytes(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, ABOUT, rows_per_shard=100)
    for part in numbered(250).split(50):
        writer.append({SITE.name: part}, 1)
        if (tmp_path / "manifest.json").exists():
            manifest = json.loads((tmp_path / "manifest.json").read_text())
            assert sum(map(len, Activations(tmp_path).shards)) == manifest["rows"] == 50 * manifest["windows"]
