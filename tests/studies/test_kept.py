"""What a study found it does not look for again; what another setting found it does not use."""

from pathlib import Path

from microtome.studies.kept import Kept


def test_a_result_is_made_once_and_a_line_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    path, made = tmp_path / "found.jsonl", []

    def find() -> dict[str, float]:
        made.append(1)
        return {"loss": 0.5}

    assert Kept(path, {"seed": 0}).of("a", find) == {"loss": 0.5}
    assert Kept(path, {"seed": 0}).of("a", find) == {"loss": 0.5}
    assert len(made) == 1
    Kept(path, {"seed": 1}).of("a", find)
    assert len(made) == 2
    path.write_text(path.read_text()[:-2])
    Kept(path, {"seed": 0}).of("a", find)
    assert len(made) == 2
    Kept(path, {"seed": 1}).of("a", find)
    assert len(made) == 3
    assert set(Kept(path, {"seed": 1}).found) == {"a"}
