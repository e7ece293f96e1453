"""Each JSON file names its schema; another schema, or a key that nobody knows, is refused."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from microtome.store.records import Figures, Run, Summary


def run() -> Run:
    return Run(
        command="dissect", arguments={"k": 3}, model="m", site="s", created="2026-01-01T00:00:00+00:00", version="0"
    )


def summary() -> Summary:
    figures = dict(explained_variance=0.9, l0=32.0)
    return Summary(
        **figures, model="m", site="s", width=8, k=2, tokens=100, seconds=1.5, peak_memory_bytes=10**9,
        baselines={"random": Figures(**figures)},
    )  # fmt: skip


@pytest.mark.parametrize("record", [run(), summary()])
def test_what_is_written_is_read_and_names_its_schema(record: Run | Summary, tmp_path: Path) -> None:
    record.write(tmp_path / "new")
    assert type(record).read(tmp_path / "new") == record
    found = json.loads((tmp_path / "new" / record.file).read_text())
    assert found["schema"] == f"microtome/{record.file.removesuffix('.json')}/1" and "schema_name" not in found
    assert [f.name for f in (tmp_path / "new").iterdir()] == [record.file]


@pytest.mark.parametrize(
    "change", [dict(schema="microtome/run/2"), dict(colour="red"), dict(stage="dreaming"), dict(model=None)]
)
def test_other_schemas_unknown_keys_and_wrong_values_are_refused(change: dict, tmp_path: Path) -> None:
    run().write(tmp_path)
    found = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(found | change))
    with pytest.raises(ValidationError):
        Run.read(tmp_path)


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run().write(tmp_path)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        run().model_copy(update={"stage": "done"}).write(tmp_path)
    assert Run.read(tmp_path).stage == "load" and [f.name for f in tmp_path.iterdir()] == ["run.json"]
