"""A network that only says what it was given: its activations are token, window and position, so a row tells its origin."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from microtome.core.edit import Edit
from microtome.core.errors import NoSuchSite
from microtome.core.inputs import Arrays, Inputs, Tokens
from microtome.core.site import Site
from microtome.core.trace import Trace
from microtome.data.windows import Window


class Echo:
    """`echo`: (token, position); `twice`: the double of it in one more column, with a head axis at `heads`."""

    def __init__(self, spoil: int | None = None):
        """`spoil`: a token at which the activation is not finite."""
        self.spoil, self.passes = spoil, 0
        self.known = {
            s.name: s
            for s in (
                Site("echo"),
                Site("twice"),
                Site("heads", "batch head pos d"),
                Site("picture", "batch d y x"),
                Site("small", "batch d y x"),
                Site("flat", "batch d"),
                Site("constant"),
                Site("pattern", "batch head query key"),
            )
        }

    def site(self, name: str) -> Site:
        if name not in self.known:
            raise NoSuchSite.named(name, self.known)
        return self.known[name]

    def sites(self, pattern: str = "*") -> list[Site]:
        return list(self.known.values())

    def run(
        self,
        inputs: Inputs,
        *,
        read: Iterable[Site] | None = None,
        edit: Sequence[Edit] = (),
        leaves: Iterable[Site] = (),
    ) -> Trace:
        self.passes += 1
        made = self._of_tokens(inputs) if isinstance(inputs, Tokens) else self._of_pictures(inputs)
        return Trace(inputs, {s.name: made[s.name] for s in read or ()}, self.known)

    def _of_tokens(self, inputs: Tokens) -> dict[str, Tensor]:
        echo = torch.stack([inputs.ids, inputs.positions], -1).float()
        if self.spoil is not None:
            echo = torch.where((inputs.ids == self.spoil)[..., None], torch.nan, echo)
        twice = torch.cat([2 * echo, echo[..., :1]], -1)
        return {
            "echo": echo, "twice": twice, "heads": torch.stack([echo, -echo], 1), "constant": torch.ones_like(echo),
            "pattern": torch.zeros(len(inputs), 1, 2, 2),
        }  # fmt: skip

    def _of_pictures(self, inputs: Inputs) -> dict[str, Tensor]:
        assert isinstance(inputs, Arrays)
        picture = inputs.tensors[0]
        return {"picture": picture, "small": picture[..., ::2, ::2], "flat": picture[:, :, 0, 0]}


def windows(count: int, context: int = 9) -> Iterator[Window]:
    """Windows whose every token is the number of the window."""
    for i in range(count):
        yield Window(np.full(context, i), f"document {i}", np.zeros((context, 0), bool))


def origins(x: Tensor) -> list[tuple[int, int]]:
    """The window and position of each row of `echo`."""
    return [(int(window), int(position)) for window, position in x.tolist()]
