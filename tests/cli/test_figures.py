"""What `--json` names holds what the command found."""

import json
from pathlib import Path

from pydantic import BaseModel, Field

from microtome.cli.figures import write_figures


class Found(BaseModel):
    kind: str = Field(default="a", alias="schema")
    amount: float = 0.5


def test_a_record_stands_under_its_names_in_a_folder_that_was_not_there(tmp_path: Path) -> None:
    write_figures(Found(), tmp_path / "new" / "found.json")
    assert json.loads((tmp_path / "new" / "found.json").read_text()) == {"schema": "a", "amount": 0.5}


def test_several_are_a_list_and_what_is_no_number_is_null(tmp_path: Path) -> None:
    write_figures([Found(), Found(amount=float("nan"))], tmp_path / "found.json")
    assert [row["amount"] for row in json.loads((tmp_path / "found.json").read_text())] == [0.5, None]


def test_where_no_file_is_named_none_is_written(tmp_path: Path) -> None:
    write_figures(Found(), None)
    assert list(tmp_path.iterdir()) == []
