"""`microtome check`: a row for each site, the figures as a record, and an exit code that says whether one fails."""

from pathlib import Path

import pytest

import microtome as mt
from microtome.cli import check as command
from microtome.cli.main import code_of, main
from microtome.models.verification import Check, Verification
from microtome.store.records import Checked


@pytest.fixture(scope="module")
def checked(llama_folder: Path) -> Checked:
    return mt.check(str(llama_folder))


def test_every_named_site_has_one_row(checked: Checked, llama_folder: Path) -> None:
    names = [site.site for site in checked.sites]
    assert names == list(mt.load(llama_folder, verify=False).family.sited)
    assert len(names) == len(set(names))


def test_a_true_table_passes(checked: Checked) -> None:
    assert checked.ok and all(site.ok and not site.reason for site in checked.sites)
    assert all(site.error is None or site.error < 1e-4 for site in checked.sites)


def test_a_row_shows_the_equation_that_binds_its_site(checked: Checked) -> None:
    equation = next(site.identity for site in checked.sites if site.site == "resid_post.1")
    assert equation.startswith("resid_post.1 = resid_mid.1 + mlp_out.1")


def test_the_figures_are_written_and_read_back(llama_folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["check", str(llama_folder), "--json", str(tmp_path / "check.json")]) == 0
    assert Checked.read(tmp_path).family == "llama"
    assert "every site holds what its name says" in capsys.readouterr().out


def test_the_screen_has_one_line_for_each_kind_of_site(checked: Checked, capsys) -> None:
    command.show(checked)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert sum(line[:4] == ["resid_post", "0", "to", "1"] for line in lines) == 1


def failing(model) -> Checked:
    checks = tuple(
        Check(site, (2, 5, 16), "a batch = its rows singly", 0.0 if ok else 0.5, ok, "" if ok else "off by [half]")
        for site, ok in ((name, name != "z.0") for name in model.family.sited)
    )
    return command.told(model, Verification("m", "llama", checks, {"z.0": "off by [half]"}, {}))


def test_a_site_that_fails_stands_alone_with_its_reason(llama_folder: Path, capsys) -> None:
    found = failing(mt.load(llama_folder, verify=False))
    command.show(found)
    said = capsys.readouterr().out
    assert "z.0 is withdrawn: off by [half]" in said and "every site holds" not in said
    assert [site.site for site in found.sites if not site.ok] == ["z.0"]


def test_a_site_that_fails_is_exit_code_one(llama_folder: Path) -> None:
    assert code_of(lambda: failing(mt.load(llama_folder, verify=False))) == 1


@pytest.mark.parametrize(("layers", "said"), [([0, 1, 2], "0 to 2"), ([0, 2], "0, 2"), ([4], "4"), ([], "")])
def test_layers_are_told_shortly(layers: list[int], said: str) -> None:
    assert command.layers([f"z.{layer}" for layer in layers] or ["embed"]) == said


def test_a_precision_that_is_none_is_refused() -> None:
    with pytest.raises(mt.Refusal, match="no dtype 'float7'"):
        mt.check("specimen", dtype="float7")
