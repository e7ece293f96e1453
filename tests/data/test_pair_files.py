"""Files of prompts: read in both forms, and refused with the place of the mistake."""

import json
from pathlib import Path

import pytest

from microtome.core.errors import Refusal
from microtome.data.pair_files import read_prompts
from microtome.data.pairs import Prompt

ONE = {"clean": "a b", "corrupt": "a c", "right": " x", "wrong": [" y", " z"]}


def test_a_list_and_a_list_under_a_key_hold_the_same(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([ONE]))
    assert read_prompts(path) == [Prompt("a b", "a c", (" x",), (" y", " z"))]
    other = {key: value for key, value in ONE.items() if key != "right"} | {"answer": " x"}
    path.write_text(json.dumps({"model": "any", "prompts": [other]}))
    assert read_prompts(path) == [Prompt("a b", "a c", (" x",), (" y", " z"))]


@pytest.mark.parametrize(
    ("held", "why"),
    [
        ("{", "is no JSON"),
        ("{}", "holds no list of prompts"),
        ("[]", "holds no list of prompts"),
        ("[3]", "prompt 0 of .* is 3"),
        (json.dumps([ONE, ONE | {"clean": None}]), "prompt 1 of .* has None for 'clean'"),
        (json.dumps([ONE | {"wrong": []}]), r"prompt 0 of .* has \[\] for 'wrong'"),
        (json.dumps([ONE | {"right": ""}]), "prompt 0 of .* has '' for 'right'"),
    ],
)
def test_what_is_no_prompt_is_refused(held: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(held)
    with pytest.raises(Refusal, match=why):
        read_prompts(path)
