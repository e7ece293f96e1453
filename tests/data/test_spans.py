"""Labels of one's own: spans of characters, or one label of a whole text."""

import json

import pytest

from microtome.core.errors import Refusal
from microtome.data.spans import labelled_line


def line(**found: object) -> str:
    return json.dumps(found)


def test_a_label_of_the_whole_text_is_a_span_over_it() -> None:
    whole = labelled_line(line(text="So good.", label="positive"), "line 1")
    assert whole == labelled_line(line(text="So good.", labels={"positive": [[0, 8]]}), "line 1")


def test_what_is_no_text_with_labels_is_refused() -> None:
    for bad in ("{", line(text="a"), line(text=3, label="b"), line(text="a", labels=[1])):
        with pytest.raises(Refusal, match="line 7 is no text with labels; write it as"):
            labelled_line(bad, "line 7")
    with pytest.raises(Refusal, match="labels characters 0 to 9 as 'b', but its text has 1"):
        labelled_line(line(text="a", labels={"b": [[0, 9]]}), "line 7")
