"""Figures of a training in TensorBoard. Needs the extra `microtome[tensorboard]`."""

from pathlib import Path

from microtome.core.errors import Refusal
from microtome.store.journal import Figures


class TensorBoard:
    """One scalar for each figure, in event files in a folder: `tensorboard --logdir FOLDER` shows them."""

    def __init__(self, folder: Path | str):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise Refusal(
                "this journal needs the package `tensorboard`: pip install 'microtome[tensorboard]'"
            ) from None
        self.writer = SummaryWriter(str(folder))

    def log(self, step: int, figures: Figures) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()
