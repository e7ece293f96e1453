"""run.json of a command that is done in one sitting: what `browse` finds it by."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from microtome.store.records import Run


def finished(
    command: str, model: str, arguments: Mapping[str, object], into: Path, seconds: float = 0.0, *, site: str = ""
) -> None:
    """Write run.json. Arguments that were not given are left out, and paths become text."""
    given = {name: value for name, value in arguments.items() if value is not None}
    Run(
        command=command, arguments=json.loads(json.dumps(given, default=str)), model=model, site=site,
        created=datetime.now(UTC).isoformat(timespec="seconds"), version=version("microtome"), stage="done",
        seconds=seconds,
    ).write(into)  # fmt: skip
