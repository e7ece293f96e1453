"""Pairs of prompts in a JSON file, as people write them.

    [{"clean": "Lily went to the park.", "corrupt": "Tim went to the park.", "right": " She", "wrong": " He"}, ...]

The list may also stand under the key "prompts"; "answer" means "right"; several answers are a list of texts.
"""

import json
from pathlib import Path
from typing import Any

from microtome.core.errors import Refusal
from microtome.data.pairs import Prompt

FORM = 'give a list of {"clean": ..., "corrupt": ..., "right": ..., "wrong": ...}'


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file. Raises Refusal where it is none, naming the first that is wrong."""
    if not path.is_file():
        raise Refusal(f"there is no file {path}; {FORM} in JSON")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refusal(f"{path} is no JSON ({error}); {FORM}") from error
    given = held.get("prompts") if isinstance(held, dict) else held
    if not isinstance(given, list) or not given:
        raise Refusal(f"{path} holds no list of prompts; {FORM}")
    return [prompt(path, place, one) for place, one in enumerate(given)]


def prompt(path: Path, place: int, held: Any) -> Prompt:
    """One prompt of a file. Raises Refusal, with its place, for what is no prompt."""
    if not isinstance(held, dict):
        raise Refusal(f"prompt {place} of {path} is {held!r}; {FORM}")
    clean, corrupt = (text_of(path, place, key, held.get(key)) for key in ("clean", "corrupt"))
    right = answers(path, place, "right", held.get("right", held.get("answer")))
    return Prompt(clean, corrupt, right, answers(path, place, "wrong", held.get("wrong")))


def text_of(path: Path, place: int, key: str, held: Any) -> str:
    """The text of one key. Raises Refusal where it holds anything else."""
    if not isinstance(held, str):
        raise Refusal(f"prompt {place} of {path} has {held!r} for {key!r}; {FORM}")
    return held


def answers(path: Path, place: int, key: str, held: Any) -> tuple[str, ...]:
    """One answer or several."""
    texts = held if isinstance(held, list) else [held]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise Refusal(f"prompt {place} of {path} has {held!r} for {key!r}; give a text of one token, or a list of such")
    return tuple(texts)
