"""The study of pronouns: its nodes and effects by brute force, its claims on the real model, and what it says without."""

from pathlib import Path

import pytest
import torch

from microtome.cli.main import SKIPPED, main
from microtome.core.edit import Edit, patch
from microtome.core.errors import Absent
from microtome.core.inputs import Tokens
from microtome.data.pairs import Pairs, Prompt
from microtome.studies.pronoun import (
    THRESHOLD,
    Pronoun,
    exact_effects,
    integrated,
    material,
    nodes_of,
    outputs,
    overlap,
    searched,
)
from microtome.studies.study import Setting
from tests.models.zoo import model
from tests.studies.sums import Silent

PROMPT = Prompt("a", "b", ("c",), ("d",))
PAIRS = Pairs(
    (PROMPT, PROMPT), Tokens.of([[5, 6, 7, 8], [9, 10, 11]]), Tokens.of([[5, 12, 7, 8], [13, 10, 11]]),
    ((3,), (4,)), ((5,), (6,)),
)  # fmt: skip


def test_exact_effects_are_those_of_one_patch_at_a_time() -> None:
    m = model("llama")
    nodes = nodes_of(m, PAIRS)
    assert len(nodes) == 2 * 5 * 3
    found = exact_effects(m, PAIRS, nodes, Silent())
    corrupt, measure = m.run(PAIRS.corrupt, read=outputs(m)), PAIRS.logit_difference()
    for i in (0, 7, 29):
        alone = measure(m.run(PAIRS.clean, edit=[patch(nodes[i].at(), corrupt)])) - measure(m.run(PAIRS.clean))
        torch.testing.assert_close(found[i], alone.mean(), atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_what_the_search_leaves_out_is_out_when_the_next_is_tried() -> None:
    """By hand: the same order, with patches for all that moved too little."""
    m = model("llama")
    measure, nodes = PAIRS.logit_difference(), [n for n in nodes_of(m, PAIRS) if n.position >= -2]
    found = searched(m, PAIRS, nodes, Silent())
    corrupt = m.run(PAIRS.corrupt, read=outputs(m))
    order = sorted(nodes, key=lambda n: (-int(n.site.name[-1]), n.site.name[0] == "z", -n.position))
    left: list[Edit] = []
    value = float(measure(m.run(PAIRS.clean)).mean())
    for node in order:
        tried = [*left, patch(node.at(), corrupt)]
        now = float(measure(m.run(PAIRS.clean, edit=tried)).mean())
        assert float(found[nodes.index(node)]) == pytest.approx(now - value, abs=1e-5)
        if abs(now - value) < THRESHOLD:
            left, value = tried, now
    assert len(left) > 0


def test_the_estimate_of_what_stands_last_is_near_the_exact_effect() -> None:
    """Between the last MLP and the logits there is a norm alone, so its estimate differs little."""
    m = model("gpt2")
    nodes = nodes_of(m, PAIRS)
    exact, estimated = exact_effects(m, PAIRS, nodes, Silent()), integrated(m, PAIRS, nodes)
    last = [i for i, n in enumerate(nodes) if n.site.name == "mlp_out.1"]
    assert torch.corrcoef(torch.stack((exact[last], estimated[last])))[0, 1] > 0.9
    assert overlap(exact, exact) == 1


def test_without_its_material_it_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MICROTOME_DATA", raising=False)
    assert main(["study", "pronoun", "--into", str(tmp_path / "run")]) == SKIPPED
    assert "skipped: this study needs stories260k" in capsys.readouterr().err
    monkeypatch.setenv("MICROTOME_DATA", str(tmp_path))
    with pytest.raises(Absent, match="holds no stories260k-hf; put it there"):
        material()


def test_on_the_real_model_its_claims_hold(shared_data: Path, tmp_path: Path) -> None:
    report = Pronoun(quick=8, places=(-1, -2, -9)).run(Setting(tmp_path, quick=True), Silent())
    assert [c.name for c in report.claims if not c.ok] == []
