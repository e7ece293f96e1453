"""Figures of a training in trackio, which keeps them on this machine. Needs the extra `microtome[trackio]`."""

from collections.abc import Mapping
from typing import Any

from microtome.core.errors import Refusal
from microtome.store.journal import Figures


class Trackio:
    """One run of a project; `trackio show` opens it. `settings` are the run's own, shown beside it."""

    def __init__(self, project: str, *, name: str | None = None, settings: Mapping[str, Any] | None = None):
        try:
            import trackio
        except ImportError:
            raise Refusal("this journal needs the package `trackio`: pip install 'microtome[trackio]'") from None
        self.run = trackio.init(project=project, name=name, config=dict(settings or {}))

    def log(self, step: int, figures: Figures) -> None:
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        self.run.finish()
