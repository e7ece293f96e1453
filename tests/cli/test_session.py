"""A live model behind the pages answers in plain values, and refuses in a sentence."""

from pathlib import Path

import pytest

from microtome.cli.session import LiveSession
from microtome.core.session import Session
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.sae import SAE
from microtome.models.load import load


@pytest.fixture(scope="module")
def session(llama_folder: Path) -> LiveSession:
    return LiveSession(load(llama_folder, verify=False), SAE(Site("resid_post.0"), 16, 40, TopK(5)))


def test_what_fires_on_a_text_comes_strongest_first_and_agrees_with_each_components_own_activity(
    session: LiveSession,
) -> None:
    firing = session.fire("the cat", top=3)
    assert isinstance(session, Session) and "".join(firing.tokens[1:]) == "the cat"
    for place, (components, values) in enumerate(zip(firing.components, firing.values, strict=True)):
        assert len(components) == len(values) <= 3 and values == sorted(values, reverse=True)
        for component, value in zip(components, values, strict=True):
            tokens, activity = session.activity("the cat", component)
            assert tokens == firing.tokens and activity[place] == pytest.approx(value)


def test_more_than_fire_are_not_made_up(session: LiveSession) -> None:
    assert all(len(row) <= 5 and all(v > 0 for v in row) for row in session.fire("the cat", top=30).values)


def test_a_text_longer_than_the_model_takes_is_refused(session: LiveSession) -> None:
    with pytest.raises(ValueError, match="the text has 101 tokens, and the model takes 64; give a shorter one"):
        session.fire("a" * 100, top=3)
