"""`microtome compare`: two runs whose matching components are known, a run beside itself, and runs that cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from microtome.cli.finished import finished
from microtome.cli.main import DONE, WRONG, main
from microtome.dictionaries.files import save_dictionary
from microtome.dictionaries.sae import SAE
from microtome.store.catalog import mapped
from microtome.store.records import Comparison
from tests.explain.test_catalog import built
from tests.explain.test_together import sae

WIDTH = 40


def write_run(folder: Path, made: SAE) -> Path:
    folder.mkdir(parents=True)
    save_dictionary(made, folder / "dictionary")
    built(folder / "catalog", dictionary=made)
    finished("dissect", "toy", {}, folder, site="resid_post.0")
    return folder


def reordered(made: SAE, order: torch.Tensor) -> SAE:
    made.W_enc.copy_(made.W_enc[order] if made.W_enc.shape[0] == WIDTH else made.W_enc[:, order])
    made.W_dec.copy_(made.W_dec[order])
    made.b_enc.copy_(made.b_enc[order])
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    order = torch.arange(WIDTH).flip(0)
    return write_run(folder / "one", sae(WIDTH, 5)), write_run(folder / "other", reordered(sae(WIDTH, 5), order))


def test_the_same_components_in_another_order_are_found_by_both_measures(runs, tmp_path: Path, capsys) -> None:
    figures = tmp_path / "figures" / "found.json"
    assert main(["compare", *map(str, runs), "--into", str(tmp_path / "c"), "--json", str(figures)]) == DONE
    found = Comparison.read(tmp_path / "c")
    assert found.written is not None and found.active is not None
    assert found.written.partner == list(range(WIDTH))[::-1] and all(found.written.mutual)
    assert found.written.shared == 1 and found.written.chance is not None and found.written.chance < 1
    assert found.written.shared_by_chance is not None and found.written.shared_by_chance < 0.6  # of so few directions
    fired = [n for n, density in enumerate(found.first.density) if density > 0]
    assert all(found.active.partner[n] == WIDTH - 1 - n and found.active.mutual[n] for n in fired)
    assert found.active.shared == pytest.approx(1) and json.loads(figures.read_text())["seconds"] == found.seconds
    assert "100.0% of one write as one of other does (" in capsys.readouterr().out


def test_a_run_beside_itself_shows_others_only(runs, tmp_path: Path) -> None:
    assert main(["compare", str(runs[0]), str(runs[0]), "--into", str(tmp_path / "c")]) == DONE
    found = Comparison.read(tmp_path / "c")
    for alike in (found.written, found.active):
        assert alike is not None and all(n != partner for n, partner in enumerate(alike.partner))


def test_what_cannot_be_compared_is_one_sentence(runs, tmp_path: Path, capsys) -> None:
    other = write_run(tmp_path / "apart", sae(12, 1))
    path = other / "catalog" / "windows.safetensors"
    held = {name: np.array(rows) for name, rows in mapped(path).items()}
    held["tokens"][0, 3] += 1
    save_file(held, path)
    for part in (other / "dictionary").iterdir():
        part.unlink()
    (other / "dictionary").rmdir()
    assert main(["compare", str(runs[0]), str(other), "--into", str(tmp_path / "c")]) == WRONG
    said = capsys.readouterr().err
    assert "dictionary is not there" in said and "on different text" in said and said.count("\n") == 1
