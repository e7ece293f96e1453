"""Results kept as they come, so that a study that was stopped goes on from there: one line of JSON for each."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Kept:
    """Figures by name, of one setting. Those of another setting in the same file are left alone and not used."""

    def __init__(self, path: Path, setting: Mapping[str, Any]):
        self.path, self.setting = path, json.loads(json.dumps(dict(setting)))
        rows = [row for row in map(whole, path.read_text().splitlines()) if row] if path.exists() else []
        self.found: dict[str, dict[str, Any]] = {r["name"]: r["found"] for r in rows if r["setting"] == self.setting}

    def of(self, name: str, find: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What was found before under this name, or what is found now."""
        if name not in self.found:
            self.found[name] = dict(find())
            line = json.dumps({"name": name, "setting": self.setting, "found": self.found[name]})
            with self.path.open("a") as file:
                file.write(f"\n{line}\n")  # begun anew: a stop may have cut off the line before
        return self.found[name]


def whole(line: str) -> dict[str, Any] | None:
    """A row, or None for a line that is empty or was cut off."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
