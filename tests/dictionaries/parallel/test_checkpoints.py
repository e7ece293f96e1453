"""A fit by many goes on from its last checkpoint: bit for bit on the same mesh, and on any other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.dictionaries.parallel.checkpoints import checkpoints_in
from microtome.dictionaries.parallel.group import ALONE
from microtome.dictionaries.parallel.mesh import Mesh
from microtome.store.checkpoint import load_state
from microtome.store.divided import load_divided
from tests.dictionaries.parallel import jobs
from tests.dictionaries.parallel.crew import Crew
from tests.dictionaries.parallel.test_engine import agree, whole

pytestmark = pytest.mark.timeout(1100)

MESH = Mesh(None, ALONE, ALONE, ALONE)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Crew]:
    """Two processes, of which one will be lost."""
    crew = Crew(2, tmp_path)
    yield crew
    crew.close()


def test_a_resumed_fit_is_an_uninterrupted_one_bit_for_bit(two: Crew, tmp_path: Path) -> None:
    mesh = {"latent": 2, "data": 1}
    through = two.run(jobs.together, kind="sae", **mesh)
    two.run(jobs.stopped, **mesh, folder=str(tmp_path), steps=3)
    for mine, theirs in zip(two.run(jobs.resumed, **mesh, folder=str(tmp_path)), through, strict=True):
        assert mine["steps"] == theirs["steps"][3:]
        for part in ("learned", "objective"):
            assert all(torch.equal(x, theirs[part][name]) for name, x in mine[part].items())


def test_what_two_divided_one_way_goes_on_divided_another_way(two: Crew, tmp_path: Path) -> None:
    two.run(jobs.stopped, latent=2, data=1, folder=str(tmp_path), steps=3)
    found = two.run(jobs.resumed, latent=1, data=2, folder=str(tmp_path))
    expected = jobs.alone("sae")
    agree(found, 1, expected | {"steps": expected["steps"][3:], "parts": expected["parts"][3:]})


def test_one_process_reads_what_two_wrote_and_goes_on(two: Crew, tmp_path: Path) -> None:
    found = two.run(jobs.stopped, latent=2, data=1, folder=str(tmp_path), steps=3)
    assert [p.name for p in checkpoints_in(tmp_path)] == ["step-00000002", "step-00000003"]
    state = load_divided(checkpoints_in(tmp_path)[-1])["fit"]
    for part in ("learned", "objective"):
        for name, x in whole(found, part, 2).items():
            assert torch.equal(state[part][name], x), name
    assert [len(x) for x in state["engine"]["moments"]["W_enc"]] == [jobs.WIDTH] * 2 and state["rows"] == 3 * jobs.ROWS
    sae = jobs.made("sae")
    sae.load_state_dict(state["learned"])


def test_a_checkpoint_of_another_shape_or_cut_off_is_refused_on_every_rank(two: Crew, tmp_path: Path) -> None:
    two.run(jobs.stopped, latent=2, data=1, folder=str(tmp_path), steps=1)
    last = checkpoints_in(tmp_path)[-1]
    for each in two.run(jobs.resumed_wrongly, latent=2, folder=str(tmp_path)):
        assert "holds W_dec of shape (20, 8), and here it is (10, 8); make the dictionary as it was" in each["said"]
    lost = max(last.glob("*.safetensors"))
    kept = lost.read_bytes()
    lost.write_bytes(kept[:-100])
    with pytest.raises(Refusal, match="is damaged; delete its folder and go on from an earlier one"):
        load_divided(last)
    lost.unlink()
    with pytest.raises(Refusal, match=r"lacks parts of what its state\.json names; delete its folder"):
        load_divided(last)
    (last / "state.json").unlink()
    with pytest.raises(Refusal, match=r"state\.json is missing; delete its folder"):
        load_divided(last)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "patience"), [("killed", 800.0), ("hangs", 20.0)])
def test_when_a_rank_is_gone_the_others_stop_and_all_can_go_on(pair: Crew, tmp_path: Path, how: str, patience: float):
    """A killed process is noticed at once, whatever the patience; one that hangs, when patience is over."""
    folder = tmp_path / "checkpoints"
    pair.begin(jobs.dies, folder=str(folder), patience=patience, how=how)
    assert pair.answer(900) == "", "the rank that is left answers with what it noticed"
    left = load_state(tmp_path / "0.safetensors")
    assert left["said"].startswith("rank 0 of 2 waits for a process that died or hangs (")
    assert left["said"].endswith("start all again, and they go on from the last checkpoint")
    state = load_divided(checkpoints_in(folder)[-1])
    expected = jobs.alone("sae")
    run = jobs.run_of(jobs.made("sae"), jobs.batches()[state["also"]["seen"] :], MESH)
    run.load_state_dict(state["fit"])
    for step, there in zip(run, expected["steps"][3:], strict=True):
        assert step.loss == pytest.approx(there[2], rel=1e-9)
