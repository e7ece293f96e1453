"""A corpus is cut for the model that reads it, and says what it cannot do."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from microtome.core.errors import Refusal
from microtome.data.corpus import corpus, documents
from microtome.data.text import held_out
from microtome.data.windows import Tokenizer, gather
from tests.data.test_windows import Letters


@dataclass
class Reader:
    """A model as far as a corpus sees it."""

    tokenizer: Tokenizer | None
    context: int | None = 8
    name: str = "reader"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text("abcdefgh" * 4)
    return str(tmp_path)


def test_windows_are_as_long_as_the_model_takes(folder: str) -> None:
    reader = Reader(Letters(None, 0))
    assert gather(corpus(reader, [folder]), 3).tokens.shape == (3, 8)
    assert gather(corpus(reader, [folder], context=4), 3).tokens.shape == (3, 4)
    assert gather(corpus(Reader(Letters(None, 0), context=None), context=300), 2).tokens.shape == (2, 300)


def test_parts_share_no_document_and_the_seed_orders_them(folder: str) -> None:
    train, judged = ({d.name for d in documents([folder], part)} for part in ("train", "held_out"))
    assert train and judged and not train & judged
    assert documents([folder], "train", 0) != documents([folder], "train", 1)
    assert documents([folder], "train", 1) == documents([folder], "train", 1)


def test_what_cannot_be_read_is_refused(folder: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="a context of 9 is more than the 8 positions of reader; give at most 8"):
        next(corpus(Reader(Letters(None, 0)), [folder], context=9))
    with pytest.raises(Refusal, match="reader has no tokenizer"):
        next(corpus(Reader(None), [folder]))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "0.txt").write_text("short")
    other = "train" if held_out("0.txt") else "held_out"
    with pytest.raises(Refusal, match=f"no {other.replace('_', '-')} documents; give more files, or longer ones"):
        documents([str(tmp_path / "one")], other)
