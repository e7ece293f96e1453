"""Harvests of several sites, in other precisions and in parts: the rows are those of a run, aligned, each in one part."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from microtome.core.errors import NoSuchSite, Refusal
from microtome.core.inputs import Arrays
from microtome.core.rows import Rows
from microtome.models.hooked import HookedModel
from microtome.store.checkpoint import load_state, save_state
from microtome.store.filters import Positions, SpecialTokens
from microtome.store.harvest import harvest, harvesting
from microtome.store.passes import Reader
from microtome.store.quantised import CODECS, Codec, Float32, Int8
from microtome.store.shards import Activations
from tests import toys
from tests.store.echo import Echo, origins, windows

EXACT = Float32()


def everything(found: Activations) -> dict[str, Tensor]:
    return found.values(torch.arange(len(found)))


# ---------------------------------------------------------------- several sites


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
def test_what_is_read_back_is_what_one_pass_gave_within_the_codecs_bound(
    codec: Codec, network: HookedModel, tmp_path: Path
) -> None:
    sites = ["resid_post.0", "mlp_act.1", "embed"]
    inputs = [toys.rows(ragged=True), toys.rows(ragged=True, left=True), toys.rows()]
    found = harvest(network, inputs, sites, 10**6, tmp_path, stored=codec, precision=torch.float32)
    reader = Reader(network, sites, precision=torch.float32)
    each = [reader.read(batch).rows() for batch in inputs]
    for site in sites:
        x = torch.cat([rows[site] for rows in each])
        assert ((everything(found)[site] - x).abs() <= codec.error_bound(x)).all()
    assert found.sites == sites and found.widths == {"resid_post.0": 8, "mlp_act.1": 12, "embed": 8}
    assert found.manifest["stored"] == codec.name and found.manifest["dropped"] == {"Positions(start=1, stop=None)": 9}


def test_batches_of_several_sites_are_aligned_and_one_can_be_chosen(tmp_path: Path) -> None:
    found = harvest(Echo(), windows(20), ["echo", "twice"], 10**6, tmp_path, stored=EXACT)
    seen = []
    for batch in found.batches(16):
        assert isinstance(batch, Rows) and torch.equal(batch["twice"][:, :2], 2 * batch["echo"])
        seen += origins(batch["echo"])
    assert sorted(seen) == [(w, p) for w in range(20) for p in range(1, 9)]
    alone = found.at("twice")
    assert alone.width == 3 and torch.equal(alone.rows(torch.arange(160)), everything(found)["twice"])
    assert all(isinstance(batch, Tensor) for batch in alone.batches(16))
    for ask in (lambda: found.width, lambda: found.sample(3), lambda: found.rows(torch.arange(3))):
        with pytest.raises(Refusal, match="these are rows of echo, twice; choose one of them with `at`"):
            ask()
    with pytest.raises(NoSuchSite, match="holds no rows of 'third', only of echo, twice"):
        found.at("third")


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
def test_a_shard_is_as_large_as_its_codec_says(codec: Codec, tmp_path: Path) -> None:
    found = harvest(toys.residual(), [toys.rows()] * 50, "logits", 10**6, tmp_path, stored=codec)
    size, header = (tmp_path / "shard-00000.safetensors").stat().st_size, 300
    assert 0 <= size - len(found) * codec.bytes_per_row(toys.VOCAB) <= header


def test_pictures_can_be_harvested(tmp_path: Path) -> None:
    pictures = torch.randn(6, 3, 4, 4)
    found = harvest(Echo(), [Arrays((p,)) for p in pictures.split(4)], "picture", 10**6, tmp_path, stored=EXACT)
    assert torch.equal(everything(found)["picture"], pictures.movedim(1, -1).reshape(-1, 3))


def test_filters_choose_the_rows_and_belong_to_what_is_gone_on_with(tmp_path: Path) -> None:
    filters = [Positions(2, 5), SpecialTokens((1,))]
    found = harvest(Echo(), windows(4), "echo", 10**6, tmp_path, filters=filters, stored=EXACT)
    assert origins(everything(found)["echo"]) == [(w, p) for w in (0, 2, 3) for p in (2, 3, 4)]
    assert list(found.manifest["dropped"].values()) == [24, 3]
    with pytest.raises(Refusal, match="holds activations of something else"):
        harvest(Echo(), windows(4), "echo", 10**6, tmp_path, filters=filters[:1], stored=EXACT)
    with pytest.raises(Refusal, match="holds activations of something else"):
        harvest(Echo(), windows(4), "echo", 10**6, tmp_path, filters=filters, stored=Int8())


@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_harvest_of_several_sites_goes_on_to_the_same_rows(stop: int, tmp_path: Path) -> None:
    def begin(into: str) -> object:
        return harvesting(Echo(), windows(20), ["echo", "twice"], 130, tmp_path / into, batch=4, stored=EXACT)

    list(begin("whole"))
    parts = begin("parts")
    for _ in range(stop):
        next(parts)
    parts.close()
    list(begin("parts"))
    whole, found = Activations(tmp_path / "whole"), Activations(tmp_path / "parts")
    assert len(whole) == len(found) == 130 and found.finished
    assert all(torch.equal(x, everything(found)[site]) for site, x in everything(whole).items())
    assert whole.manifest["dropped"] == found.manifest["dropped"]


@pytest.mark.parametrize(
    ("sites", "filters", "words"),
    [
        ("third", None, "no site 'third'"),
        ("constant", None, "rows of constant are the same, so there is nothing to learn"),
        ("echo", [Positions(20)], "the filters dropped every place of 3 windows"),
        ("pattern", None, "choose a site with one vector for each position"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(sites: str, filters: list | None, words: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=words):
        harvest(Echo(), windows(3), sites, 100, tmp_path, filters=filters)


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize(("of", "tokens"), [(1, 100), (3, 100), (4, 159), (3, 10**6)])
def test_parts_together_hold_exactly_so_many_rows_each_window_in_one_of_them(
    of: int, tokens: int, tmp_path: Path
) -> None:
    for part in reversed(range(of)):
        harvest(Echo(), windows(20), ["echo", "twice"], tokens, tmp_path, shard=(part, of), batch=3, stored=EXACT)
    found = Activations(tmp_path)
    rows = origins(everything(found)["echo"])
    assert len(found) == len(set(rows)) == min(tokens, 160) and found.finished
    for part in range(of):
        alone = Activations(tmp_path / f"part-{part:05d}-of-{of:05d}")
        assert {window % of for window, _ in origins(everything(alone)["echo"])} == {part}
    served = [origin for batch in found.at("echo").batches(10) for origin in origins(batch)]
    assert len(set(served)) == len(served) == len(rows) // 10 * 10


def test_a_finished_part_is_skipped_without_running_the_model(tmp_path: Path) -> None:
    model = Echo()
    first = harvest(model, windows(8), "echo", 60, tmp_path, shard=(1, 2))
    passes = model.passes
    again = harvest(model, windows(8), "echo", 60, tmp_path, shard=(1, 2))
    assert model.passes == passes and len(again) == len(first) == 30


def test_missing_parts_and_parts_that_differ_are_refused(tmp_path: Path) -> None:
    for part in (0, 2):
        harvest(Echo(), windows(20), "echo", 100, tmp_path, shard=(part, 3))
    with pytest.raises(Refusal, match="holds 2 of 3 parts, without 1; harvest those, or open the folder of one part"):
        Activations(tmp_path)
    harvest(Echo(), windows(20), "echo", 100, tmp_path, shard=(1, 3), stored=Int8())
    with pytest.raises(Refusal, match="the parts of .* differ in stored; harvest them alike"):
        Activations(tmp_path)
    for shard in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(Refusal, match=r"is none; give \(i, of\) with i from 0 to of - 1"):
            harvest(Echo(), windows(20), "echo", 100, tmp_path, shard=shard)


# ---------------------------------------------------------------- going on, and what older versions wrote


@pytest.mark.parametrize("stop", [0, 3, 10, 17])
def test_batches_go_on_from_a_saved_state(stop: int, tmp_path: Path) -> None:
    found = harvest(Echo(), windows(20), "echo", 10**6, tmp_path / "acts", stored=EXACT)
    batches = found.batches(16, epochs=2, seed=4)
    for _ in range(stop):
        next(batches)
    save_state(batches.state_dict(), tmp_path / "state")
    resumed = found.batches(16, epochs=2, seed=4)
    resumed.load_state_dict(load_state(tmp_path / "state"))
    assert len(resumed) == len(batches) == 20 - stop
    assert all(torch.equal(a, b) for a, b in zip(batches, resumed, strict=True))
    with pytest.raises(Refusal, match="that state has seed 4, and here it is 5; give the same"):
        found.batches(16, epochs=2, seed=5).load_state_dict(batches.state_dict())


def test_what_the_first_version_wrote_is_read_and_not_written_into(tmp_path: Path) -> None:
    rows = torch.arange(12.0).view(4, 3)
    save_file({"x": rows.bfloat16()}, tmp_path / "shard-00000.safetensors")
    manifest = {
        "schema": "microtome/activations/1", "site": "echo", "tokens": 4, "shards": ["shard-00000.safetensors"],
        "rows": 4, "windows": 1, "finished": True,
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = Activations(tmp_path)
    assert found.sites == ["echo"] and found.width == 3 and torch.equal(found.rows(torch.arange(4)), rows)
    with pytest.raises(Refusal, match="was written by an older version and can be read only; choose another folder"):
        harvest(Echo(), windows(2), "echo", 4, tmp_path)
