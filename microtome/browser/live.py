"""Live models behind the pages: opened at the first question, one for each run, asked one question at a time."""

import threading
from collections.abc import Callable
from pathlib import Path

from microtome.browser.cards import finite
from microtome.browser.replies import Fired, Intervened, Intervention, MovedNodes, Question, SessionState
from microtome.core.errors import Refusal
from microtome.core.session import GraphSession, Moved, Session

Opener = Callable[[Path], Session | GraphSession]
LONGEST_TEXT = 4000
TOP = 24


class CannotOpen(Refusal, RuntimeError):
    """The model of a run could not be loaded; the sentence says why."""


class CannotAnswer(Refusal):
    """The question is at fault; the sentence says how."""


class Live:
    """The sessions of a server. One lock serialises all model work: two forward passes at once only slow each other."""

    def __init__(self, open_session: Opener) -> None:
        self.open_session = open_session
        self._lock = threading.Lock()
        self._sessions: dict[Path, Session | GraphSession] = {}
        self._states: dict[Path, SessionState] = {}

    def state(self, folder: Path) -> SessionState:
        """How far a run's model is loaded."""
        return self._states.get(folder, SessionState(state="asleep", message="The model loads at the first question."))

    def ask(self, folder: Path, question: Question) -> Fired:
        """What fires on a text. Raises CannotAnswer where the question is at fault, CannotOpen where the model is."""
        check_text(question.text)
        with self._lock:
            return answer(self._session(folder), question)

    def intervene(self, folder: Path, asked: Intervention) -> Intervened:
        """What a change of a graph's nodes does to others. Raises CannotAnswer and CannotOpen as `ask` does."""
        with self._lock:
            return intervened(self._session(folder), asked)

    def _session(self, folder: Path) -> Session | GraphSession:
        if folder not in self._sessions:
            self._states[folder] = SessionState(state="loading", message="The model is being loaded.")
            self._sessions[folder] = self._open(folder)
            self._states[folder] = SessionState(state="ready", message="")
        return self._sessions[folder]

    def _open(self, folder: Path) -> Session | GraphSession:
        try:
            return self.open_session(folder)
        except Exception as error:  # whatever a loader raises becomes a sentence on the page, and may be tried again
            message = f"The model of this run cannot be loaded: {error}"
            self._states[folder] = SessionState(state="failed", message=message)
            raise CannotOpen(message) from error


def check_text(text: str) -> None:
    """Raises CannotAnswer for no text, and one that is too long."""
    if not text:
        raise CannotAnswer("There is no text. Type some.")
    if len(text) > LONGEST_TEXT:
        raise CannotAnswer(f"The text has {len(text):,} characters; at most {LONGEST_TEXT:,} are taken. Paste less.")


def answer(session: Session | GraphSession, question: Question) -> Fired:
    """What a dictionary's session says. Raises CannotAnswer."""
    if not isinstance(session, Session):
        raise CannotAnswer("This run is a graph of one prompt, and no dictionary that answers to a text.")
    try:
        return fired(session, question.text) if question.component is None else watched(session, question)
    except ValueError as error:
        raise CannotAnswer(str(error)) from error


def intervened(session: Session | GraphSession, asked: Intervention) -> Intervened:
    """What a graph's session says. Raises CannotAnswer."""
    if not isinstance(session, GraphSession):
        raise CannotAnswer("This run is a dictionary, and has no graph whose nodes could be changed.")
    try:
        found = session.intervene(asked.changes, asked.watch, asked.hold_attention)
    except ValueError as error:
        raise CannotAnswer(str(error)) from error
    return Intervened(targets=moved(found.targets), components=moved(found.components))


def moved(found: Moved) -> MovedNodes:
    """Nodes as columns, None for what is no number."""
    before, predicted, measured = ([finite(x) for x in xs] for xs in (found.before, found.predicted, found.measured))
    return MovedNodes(
        nodes=found.nodes, before=before, predicted=predicted, measured=measured,
        pearson=found.pearson, spearman=found.spearman,
    )  # fmt: skip


def fired(session: Session, text: str) -> Fired:
    """The strongest components on every token."""
    firing = session.fire(text, TOP)
    return Fired(tokens=firing.tokens, components=firing.components, values=firing.values)


def watched(session: Session, question: Question) -> Fired:
    """One component on a text, in the same shape: its value where it fires, and nothing where it is silent."""
    component = question.component
    assert component is not None
    tokens, values = session.activity(question.text, component)
    components = [[component] if value > 0 else [] for value in values]
    return Fired(tokens=tokens, components=components, values=[[value] if value > 0 else [] for value in values])
