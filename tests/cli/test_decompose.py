"""`microtome decompose`: what is written of parts is what they are, and what cannot be done is a sentence."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from microtome.cli.decompose import decompose
from microtome.cli.decomposition import SHOWN, Seen, partners
from microtome.core.errors import Refusal
from microtome.store.records import Run, TakenApart
from microtome.toys.named import toy

FIVE = "superposition-5-2"


def drawn(name: str, generator: torch.Generator, rows: int = 40, parts: int = 4) -> Seen:
    importance = torch.rand(rows, parts, generator=generator) * (torch.rand(rows, parts, generator=generator) < 0.4)
    activation = torch.randn(rows, parts, generator=generator)
    importance[:, 1] = 0.05  # active, and important nowhere
    return Seen(name, torch.randn(parts, 3), torch.randn(parts, 2), activation, importance)


def test_a_part_is_shown_where_it_matters_most(generator: torch.Generator) -> None:
    one = drawn("w", generator)
    told, shown = one.told(), one.examples()
    assert told.matters[1] == 0 and told.activation[1] > 0.5 and (shown[1] == -1).all()
    for part in (0, 2, 3):
        rows = shown[part][shown[part] >= 0]
        left = torch.tensor([i for i in range(40) if i not in rows.tolist()])
        assert one.importance[rows, part].min() > 0.1
        assert len(rows) == SHOWN and one.importance[left, part].max() <= one.importance[rows, part].min() + 2e-3
        assert told.size[part] == pytest.approx(float(one.read[part].norm() * one.write[part].norm()), rel=1e-4)


def test_partners_matter_on_the_same_rows(generator: torch.Generator) -> None:
    both = [drawn("a", generator), drawn("b", generator)]
    near, together = partners(both)
    on = torch.cat([one.matters for one in both], 1)
    for part in range(8):
        share = [float((on[:, part] & on[:, other]).sum() / max(1, (on[:, part] | on[:, other]).sum()))
                 for other in range(8)]  # fmt: skip
        share[part] = 0.0
        found = [p for p in near[part].tolist() if p >= 0]
        assert sorted(found) == [p for p in range(8) if share[p] > 0]
        assert together[part][: len(found)].tolist() == pytest.approx(sorted(share, reverse=True)[: len(found)])


def test_singular_parts_are_the_weights_and_leave_nothing_over(tmp_path: Path) -> None:
    record = decompose(FIVE, into=tmp_path, method="svd", judge=30, adversary=[2])
    held, module = load_file(tmp_path / "parts.safetensors"), toy(FIVE).module
    for name in ("encoder", "decoder"):
        torch.testing.assert_close(held[f"{name}/write"].T @ held[f"{name}/read"], module.get_parameter(name).detach())
    assert record.endured.unmasked < 1e-9 < record.endured.nothing and record.endured.l0 == 4
    assert TakenApart.read(tmp_path) == record
    assert Run.read(tmp_path).command == "decompose"


def test_gates_say_what_matters_and_each_input_is_seen_alone(tmp_path: Path) -> None:
    record = decompose(FIVE, into=tmp_path, steps=3, parts=6, rows=16, judge=30, adversary=[1, 2], seeds=2)
    held = load_file(tmp_path / "parts.safetensors")
    assert held["encoder/alone"].shape == (6, 5) and held["rows"].shape == (30, 5) and held["partner"].shape == (12, 8)
    assert (held["rows"] != 0).any(1).all()
    assert len(record.losses) == 2 and record.kept in (0, 1) and list(record.endured.adversarial) == [1, 2]
    rows = held["rows"] @ held["encoder/read"].T
    examples = held["encoder/example"]
    part, place = (examples >= 0).nonzero()[0].tolist()
    torch.testing.assert_close(held["encoder/example_activation"][part, place], rows[examples[part, place], part])


def test_parts_across_weights_matter_in_all_of_them_or_in_none(tmp_path: Path) -> None:
    record = decompose(FIVE, into=tmp_path, method="apd", steps=2, rows=16, judge=30, adversary=[1], seeds=1)
    encoder, decoder = record.weights
    assert encoder.matters == decoder.matters and len(encoder.size) == 5
    assert record.endured.l0 == pytest.approx(sum(encoder.matters), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"method": "svd", "steps": 5}, "SVD has no --steps"),
        ({"steps": 0}, "--steps is 0; give a number above 0"),
        ({"sites": ["nowhere"]}, "no weight matches 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_told(tmp_path: Path, arguments: dict, sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence):
        decompose(FIVE, into=tmp_path, **arguments)
