"""`microtome map`: another map in the place of the one that a page shows."""

from pathlib import Path

import numpy as np
import torch

from microtome.cli.main import DONE, main
from microtome.explain.plane import principal
from microtome.store.catalog import Catalog, write_map
from tests.cli.test_compare import write_run
from tests.explain.test_together import sae


def test_a_map_is_drawn_anew(tmp_path: Path, capsys) -> None:
    made = sae(40, 5)
    run = write_run(tmp_path / "run", made)
    write_map(Catalog(run / "catalog"), np.zeros((40, 2), np.float32))
    assert not Catalog(run / "catalog").position.any()
    assert main(["map", str(run), "--by", "pca", "--json", str(tmp_path / "found.json")]) == DONE
    expected = principal(made.directions().write[:, 0].detach()).numpy()
    np.testing.assert_allclose(np.abs(Catalog(run / "catalog").position), np.abs(expected), atol=1e-5)
    assert "40 components drawn by pca" in capsys.readouterr().out and torch.isfinite(torch.tensor(expected)).all()
