"""Figures of a training in Weights & Biases. Needs the extra `microtome[wandb]`."""

from collections.abc import Mapping
from typing import Any

from microtome.core.errors import Refusal
from microtome.store.journal import Figures


class WandB:
    """One run of a project, its `settings` shown beside it. WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, project: str, *, name: str | None = None, settings: Mapping[str, Any] | None = None):
        try:
            import wandb
        except ImportError:
            raise Refusal("this journal needs the package `wandb`: pip install 'microtome[wandb]'") from None
        self.run = wandb.init(project=project, name=name, config=dict(settings or {}))

    def log(self, step: int, figures: Figures) -> None:
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        self.run.finish()
