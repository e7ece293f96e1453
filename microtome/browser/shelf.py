"""The runs of one folder with their catalogues open: what the server's answers are read from."""

import json
import sqlite3
from pathlib import Path

from safetensors import SafetensorError

from microtome.browser.cards import Opened
from microtome.browser.runs import FoundRun, NotYet, Runs

BROKEN = (SafetensorError, FileNotFoundError, json.JSONDecodeError, sqlite3.Error)  # what half a file raises


class Shelf:
    """The runs of one folder with their opened catalogues, each opened at most once for each time it is written."""

    def __init__(self, folder: Path) -> None:
        self.runs = Runs(folder)
        self._opened: dict[str, Opened] = {}

    def readable(self, id: str) -> FoundRun:
        """A run, whatever it holds. Raises NoSuchRun, or NotYet where it says nothing that can be read."""
        run = self.runs[id]
        if run.state == "unreadable":
            raise NotYet(run.message)
        return run

    def opened(self, id: str) -> Opened:
        """The catalogue of a run. Raises NoSuchRun, or NotYet where it has none."""
        run, kept = self.runs[id], self._opened.get(id)
        if not run.has_catalog:
            raise NotYet(run.message)
        if kept is None or kept.written != run.written:
            self._opened[id] = kept = open_whole(run)
        return kept

    def maybe(self, run: FoundRun) -> Opened | None:
        """The catalogue of a run; None where it has none that can be read."""
        try:
            return self.opened(run.id)
        except NotYet:
            return None


def open_whole(run: FoundRun) -> Opened:
    """The catalogue of a run. Raises NotYet where a file of it was cut off."""
    try:
        return Opened(run)
    except BROKEN as error:
        raise NotYet(broken(error)) from error


def broken(error: Exception) -> str:
    """What half a file means, in a sentence."""
    return f"A file of this run cannot be read ({error}): it is being written just now, or its writing was cut off."
