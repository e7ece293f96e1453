"""A study: a published result, done again here, as claims that hold or fail.

Each study is a file of its own, named in `STUDIES`, that says which paper it follows. Running one leaves result.json,
the claims as a record, and page.html, the same with curves and words.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from microtome.core.errors import Refusal
from microtome.store.records import Claim, Result
from microtome.store.whole import whole
from microtome.studies.page import Piece, page

STUDIES = {  # each module holds its study as STUDY
    "apd": "microtome.studies.apd",
    "architectures": "microtome.studies.architectures",
    "dynamics": "microtome.studies.dynamics",
    "entities": "microtome.studies.entities",
    "ground_truth": "microtome.studies.ground_truth",
    "golden_gate": "microtome.studies.golden_gate",
    "grokking": "microtome.studies.grokking",
    "induction": "microtome.studies.induction",
    "ioi": "microtome.studies.ioi",
    "monosemanticity": "microtome.studies.monosemanticity",
    "planted": "microtome.studies.planted",
    "pronoun": "microtome.studies.pronoun",
    "sanity": "microtome.studies.sanity",
    "residual_mlp": "microtome.studies.residual_mlp",
    "scaling": "microtome.studies.scaling",
    "spd": "microtome.studies.spd",
    "shift": "microtome.studies.shift",
    "superposition": "microtome.studies.superposition",
    "truth": "microtome.studies.truth",
    "universality": "microtome.studies.universality",
    "widths": "microtome.studies.widths",
}


@runtime_checkable
class Watch(Protocol):
    """Told of what is done, and of how far each stage has come."""

    def say(self, words: str) -> None: ...

    def stage(self, name: str, total: float, unit: str) -> AbstractContextManager[Callable[[float], None]]: ...


@dataclass(frozen=True)
class Setting:
    """What a study is run on. `text` empty: the standard library. `quick`: minutes on a small CPU, wider tolerances."""

    into: Path
    model: str = "specimen"
    text: list[str] = field(default_factory=list)
    quick: bool = False
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Report:
    """What a study found: its claims, and what its page shows below them."""

    claims: tuple[Claim, ...]
    pieces: tuple[Piece, ...] = ()


class Study(ABC):
    """A published result and how to test it. `question` is one sentence."""

    name: str
    paper: str
    question: str

    @abstractmethod
    def run(self, setting: Setting, watch: Watch) -> Report:
        """Do the work, in the setting's folder, and judge the claims."""


def find(name: str) -> Study:
    """The study of this name. Raises Refusal where there is none, listing those that are."""
    if name not in STUDIES:
        near = get_close_matches(name, STUDIES, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise Refusal(f"no study {name!r}; {meant}there are: {', '.join(sorted(STUDIES))}")
    return cast(Study, import_module(STUDIES[name]).STUDY)


def conduct(study: Study, setting: Setting, watch: Watch) -> Result:
    """Run a study and leave result.json and page.html in the setting's folder."""
    setting.into.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    report = study.run(setting, watch)
    arguments = {key: value for key, value in asdict(setting).items() if key != "into"}
    result = Result(
        study=study.name, paper=study.paper, seconds=round(time.monotonic() - begun, 1), claims=list(report.claims),
        arguments=arguments, version=version("microtome"),
    )  # fmt: skip
    with whole(setting.into / "page.html") as path:
        path.write_text(page(result, study.question, report.pieces), encoding="utf-8")
    result.write(setting.into)
    return result


# ---------------------------------------------------------------- claims


def about(name: str, expected: float, found: float, *, tolerance: float, source: str) -> Claim:
    """What was found lies within `tolerance` of what was expected."""
    return judged(name, expected, tolerance, found, abs(found - expected) <= tolerance, source)


def at_most(name: str, bound: float, found: float, *, source: str) -> Claim:
    return judged(name, f"at most {bound:g}", 0.0, found, found <= bound, source)


def at_least(name: str, bound: float, found: float, *, source: str) -> Claim:
    return judged(name, f"at least {bound:g}", 0.0, found, found >= bound, source)


def judged(name: str, expected: float | str, tolerance: float, found: float, holds: bool, source: str) -> Claim:
    """A claim; what is not a finite number holds nothing."""
    finite = math.isfinite(found)
    return Claim(
        name=name, expected=expected, tolerance=tolerance, found=found if finite else None, ok=finite and holds,
        source=source,
    )  # fmt: skip
