"""Text becomes documents; which are held out depends on their names alone."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.core.errors import Refusal
from microtome.data.text import SECTION, SEPARATOR, Document, chosen, held_out, sections, text


@given(st.lists(st.text(max_size=8), unique=True))
def test_the_parts_are_disjoint_and_together_all(names: list[str]) -> None:
    documents = [Document(name, "x") for name in names]
    train, kept = (list(chosen(documents, part)) for part in ("train", "held_out"))
    assert set(train) & set(kept) == set() and set(train) | set(kept) == set(documents) == set(chosen(documents, "all"))


def test_the_split_is_the_same_everywhere_and_about_a_tenth() -> None:
    assert [n for n in ("abc", "ast", "cmath", "codecs", "codeop", "os", "typing") if held_out(n)] == [
        "cmath",
        "codecs",
        "codeop",
    ]
    assert 800 < sum(held_out(f"document {i}") for i in range(10_000)) < 1200


@given(st.text(alphabet="ab \n", max_size=400))
def test_sections_joined_are_the_text(whole: str) -> None:
    assert "".join(sections(whole * 200)) == whole * 200


def test_sections_end_at_line_ends_where_they_can() -> None:
    lines = "".join(f"line {i}\n" for i in range(10_000))
    parts = list(sections(lines))
    assert len(parts) > 1 and all(part.endswith("\n") and len(part) <= SECTION for part in parts)
    assert max(map(len, sections("x" * 50_000))) == SECTION


def test_a_folder_is_searched_through_and_its_documents_named_by_their_paths(tmp_path: Path) -> None:
    for name in ("b/x.txt", "a/x.txt", "a/deep/y.md", "a/z.bin", "notes.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"this is {name}")
    (tmp_path / "folder.md").mkdir()
    assert [d.name for d in text(tmp_path)] == ["a/deep/y.md", "a/x.txt", "b/x.txt", "notes.py"]
    assert dict(text(str(tmp_path)))["b/x.txt"] == "this is b/x.txt"
    assert [d.name for d in text(str(tmp_path / "?" / "*.txt"))] == ["a/x.txt", "b/x.txt"]
    assert [d.name for d in text([tmp_path / "notes.py", tmp_path / "a"])] == ["deep/y.md", "x.txt", "notes.py"]


def test_one_file_may_hold_many_documents(tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text(f"\none\n{SEPARATOR}\ntwo\n{SEPARATOR}\n")
    assert list(text(path)) == [Document("many.txt#0", "one"), Document("many.txt#1", "two")]
    path.write_text("only one")
    assert list(text(path)) == [Document("many.txt", "only one")]


def test_lines_of_json_are_documents_also_with_odd_line_ends_inside(tmp_path: Path) -> None:
    path, odd = tmp_path / "a.jsonl", "line\u2028separator and \x85 next line"
    path.write_text(
        "\n".join(json.dumps({"text": t}, ensure_ascii=False) for t in (odd, "two")) + "\n\n", encoding="utf-8"
    )
    assert [d.text for d in text(path)] == [odd, "two"]


@pytest.mark.parametrize("line", ["{", '{"body": "x"}', '["text"]', '{"text": 3}', "null"])
def test_a_line_that_is_no_text_is_refused_by_its_number(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line)
    with pytest.raises(
        Refusal, match='line 2 of .*a.jsonl is no JSON object with a "text"; mend it, or leave the file out'
    ):
        list(text(tmp_path / "a.jsonl"))


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(Refusal, match=r"old.txt is not UTF-8 text \(byte 2\); convert it, or leave it out"):
        list(text(tmp_path))


@pytest.mark.parametrize("missing", ["nowhere", "*.txt", "empty"])
def test_a_path_with_nothing_to_read_is_refused_at_once(missing: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refusal, match="no text at .*; give files or folders with .txt"):
        text(tmp_path / missing)


def test_an_empty_file_holds_no_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n")
    assert list(text(tmp_path / "a.txt")) == []
