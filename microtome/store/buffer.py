"""A shuffle of rows that come in order: each is copied once, to the place from which it will be served.

The buffer is a ring of pages, each of which becomes one batch. Rows are dealt to the pages in turns: in each turn every
page gets one, in an order drawn anew. The pages are filled to evenly spaced heights, so after every `batch` rows one of
them is full. It is handed over as it is, and an empty one takes its place. So a batch holds rows from the whole of the
last `size` rows, evenly, and neighbours in a document come to lie in different batches. A window of w rows gives each
of its batches about w x batch / size rows: with `size` twice w x batch, a batch holds as many distinct documents as
one drawn from a shuffle of everything would; with less, as many as `size` rows hold.

Filling up to the heights takes (size - batch) / 2 rows before the first batch; at the end fuller pages are filled up
from emptier ones. Only rows moved then are copied twice, an eighth of `size` in all.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import Refusal

Values = dict[str, Tensor]  # rows by site, as many at each


@dataclass(eq=False)
class Page:
    """A batch in the making: room for all its rows at each site, of which the first `rows` are there."""

    values: Values
    rows: int = 0

    def take(self, given: Mapping[str, Tensor], which: Int[Tensor, "some"]) -> None:
        """Copy these rows in behind those that are there."""
        room = slice(self.rows, self.rows + len(which))
        for site, x in given.items():
            torch.index_select(x, 0, which.to(x.device), out=self.values[site][room])
        self.rows = room.stop

    def move(self, other: "Page", count: int) -> None:
        """Take the last rows of another page."""
        self.take(other.values, torch.arange(other.rows - count, other.rows))
        other.rows -= count


class MixingBuffer:
    """Rows in, in order; batches out, mixed. `size` is its logical size: rows, exactly, that its pages have room for.

    `copied` counts the rows copied and `served` those served, summed over sites.
    """

    def __init__(self, batch: int, size: int, generator: torch.Generator, device: torch.device | str = "cpu"):
        """`device` is where the rows are, and stay. Raises Refusal where `size` is no multiple of `batch`."""
        if batch < 1 or size < batch or size % batch:
            near = max(1, round(size / max(batch, 1))) * batch
            raise Refusal(f"buffer is {size} rows, which is no multiple of the batch of {batch}; give {near}")
        self.batch, self.size, self.generator, self.device = batch, size, generator, device
        self.copied = self.served = 0
        self.pages: list[Page] = [Page({}) for _ in range(size // batch)]
        self.ready: deque[Values] = deque()
        self.turns = self._first_turns()

    # ------------------------------------------------------------ in

    def add(self, given: Mapping[str, Float[Tensor, "places _"]], which: Int[Tensor, "rows"]) -> None:
        """Deal these rows, so that batches which become full are ready."""
        labels = self._deal(len(which))
        order = labels.argsort(stable=True)  # the rows of each page together, in the order in which they came
        each = order.split(labels.bincount(minlength=len(self.pages)).tolist())
        full = [done for number, mine in enumerate(each) for done in self._fill(number, given, which, mine)]
        self.ready.extend(values for _, values in sorted(full, key=lambda done: done[0]))
        self.copied += len(which) * len(given)

    def _fill(self, number: int, given: Mapping[str, Tensor], which: Tensor, mine: Tensor) -> list[tuple[int, Values]]:
        """Write rows into one page, and those that replace it: what became full, each with the row that did it."""
        full = []
        while len(mine):
            page = self._opened(number, given)
            now, mine = mine[: self.batch - page.rows], mine[self.batch - page.rows :]
            page.take(given, which[now.to(which.device)])
            if page.rows == self.batch:
                full.append((int(now[-1]), page.values))
                self.pages[number] = Page({})
        return full

    def _opened(self, number: int, given: Mapping[str, Tensor]) -> Page:
        """The page of this number, with room in which to write."""
        page = self.pages[number]
        if not page.values:
            page.values = {site: x.new_empty(self.batch, x.shape[1]) for site, x in given.items()}
        return page

    def _deal(self, rows: int) -> Int[Tensor, "rows"]:
        """The page of each of the next rows."""
        pages, missing = len(self.pages), max(0, rows - len(self.turns))
        more = [torch.randperm(pages, generator=self.generator) for _ in range(-(-missing // pages))]
        turns = torch.cat([self.turns, *more])
        self.turns = turns[rows:].clone()
        return turns[:rows]

    def _first_turns(self) -> Int[Tensor, "turns"]:
        """The pages of the first rows, which fill them to evenly spaced heights: page j to j / pages of a batch."""
        heights = [j * self.batch // len(self.pages) for j in range(len(self.pages))]
        times = [(torch.arange(h) + torch.rand(h, generator=self.generator)) / max(h, 1) for h in heights]
        return torch.arange(len(heights)).repeat_interleave(torch.tensor(heights))[torch.cat(times).argsort()]

    # ------------------------------------------------------------ out

    def serve(self) -> Values:
        """The next batch. It is the caller's own: nothing is written into it any more."""
        values = self.ready.popleft()
        self.served += self.batch * len(values)
        return values

    def drain(self) -> None:
        """No more rows will come: make batches of those that are here. What is left, less than a batch, is lost."""
        waiting = sorted((p for p in self.pages if p.rows), key=lambda p: -p.rows)
        while waiting:
            page = waiting.pop(0)
            while page.rows < self.batch and waiting:
                count = min(self.batch - page.rows, waiting[-1].rows)
                page.move(waiting[-1], count)
                self.copied += count * len(page.values)
                if not waiting[-1].rows:
                    waiting.pop()
            if page.rows == self.batch:
                self.ready.append(page.values)
        self.pages = [Page({}) for _ in self.pages]
        self.turns = self._first_turns()

    # ------------------------------------------------------------ stopping and going on

    def state_dict(self) -> dict[str, Any]:
        """All that decides what comes next: the rows here (a copy), and the state of chance."""
        pages = [{"rows": p.rows, "values": {s: x[: p.rows].clone() for s, x in p.values.items()}} for p in self.pages]
        return {
            "pages": pages, "ready": [{s: x.clone() for s, x in values.items()} for values in self.ready],
            "turns": self.turns, "generator": self.generator.get_state(),
            "copied": self.copied, "served": self.served,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, its tensors copied."""
        self.pages = [self._restored(page) for page in state["pages"]]
        self.ready = deque({s: x.to(self.device, copy=True) for s, x in values.items()} for values in state["ready"])
        self.turns, self.copied, self.served = state["turns"].clone(), state["copied"], state["served"]
        self.generator.set_state(state["generator"])

    def _restored(self, page: dict[str, Any]) -> Page:
        held = page["values"].items()
        values = {s: torch.empty(self.batch, x.shape[1], dtype=x.dtype, device=self.device) for s, x in held}
        for site, x in held:
            values[site][: page["rows"]] = x
        return Page(values, page["rows"])
