"""Activations as they are made, mixed and in batches: what dictionaries are fitted on without a harvest before.

    for step in fit(dictionary, stream(model, windows, "resid_post.8"), objective): ...

One forward pass, stopped at the last site, serves all sites; and one stream serves any number of fits:

    for batch in stream(model, windows, ["mlp_in.3", "mlp_out.3"]):
        for learning in fits:
            learning.step(batch)
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch

from microtome.core.errors import Refusal
from microtome.core.fit import Batch
from microtome.core.inputs import Tokens
from microtome.core.model import Model
from microtome.core.site import Site
from microtome.data.spread import spread as spread_out
from microtome.data.windows import Window
from microtome.store.buffer import MixingBuffer
from microtome.store.filters import Filter
from microtome.store.passes import Inspection, Item, Pass, Reader, batch_of
from microtome.store.prefetch import Prefetch
from microtome.store.shards import refuse_other

Text = Iterable[Item] | Callable[[], Iterable[Item]]
PAGES = 64  # batches in the buffer at least, where its size is not given
MOST = 2**19  # rows in it, beyond those batches: a gigabyte of 512 dimensions, of which half is in use
SPREAD = 2**23  # tokens of text put in order at a time: 67 MB


def stream(
    model: Model,
    windows: Text,
    sites: Site | str | Sequence[Site | str],
    batch: int = 4096,
    buffer: int | None = None,
    *,
    tokens: int | None = None,
    epochs: int = 1,
    filters: Iterable[Filter] | None = None,
    at_once: int = 32,
    ahead: int = 1,
    precision: torch.dtype | None = None,
    spread: int = SPREAD,
    seed: int = 0,
) -> "Stream":
    """Batches of a model's activations over text.

    `windows`: windows or batches of inputs, or a function that makes them, which is needed to resume and for several
    epochs where they come from a generator. `buffer`: rows that the shuffle has room for, a multiple of `batch` (by
    default as `roomy` says); they are float32, half of that room is in use at a time, and the more there is, the better
    it mixes (see buffer.py). `tokens`: exactly so many rows are read in each epoch. `filters`: by default position 0 is
    dropped. `at_once`: windows in a forward pass. `ahead`: passes that a thread of its own makes ahead of need, 0 for
    none. `precision`: that of the linear layers, by default bfloat16 where the hardware is quicker at it. `spread`: so
    many tokens of text at a time are put in an order that mixes documents before the model reads them (see
    data/spread.py), 0 for the text's own order; batches of inputs stay as they come. The first pass waits for it.

    Raises NoSuchSite, and Refusal for sites that do not hold rows.
    """
    reader = Reader(model, sites, filters, precision)
    windows, context = looked_at(windows)
    size = roomy(batch, context) if buffer is None else buffer
    mixing = MixingBuffer(batch, size, torch.Generator().manual_seed(seed), reader.device)
    return Stream(
        reader, windows, mixing, tokens=tokens, epochs=epochs, at_once=at_once, ahead=ahead, spread=spread, seed=seed
    )


def looked_at(windows: Text) -> tuple[Text, int]:
    """The text, nothing of it lost, and how many tokens its first window has; 0 where that is none of text."""
    found = iter(windows() if callable(windows) else windows)
    first = next(found, None)
    if isinstance(windows, Iterator) and first is not None:
        windows = chain([first], found)
    if isinstance(first, Tokens):
        return windows, first.ids.shape[1]
    return windows, len(first.tokens) if isinstance(first, Window) else 0


def roomy(batch: int, context: int) -> int:
    """The size of a buffer in which a batch holds no more than two rows of a window, and so rows of many documents.

    At least 64 batches, and beyond those at most 524,288 rows.
    """
    return batch * max(PAGES, min(context // 2, MOST // batch))


class Stream(Iterator[Batch]):
    """Batches of mixed rows: a tensor of one site, `Rows` of several. Each row is served at most once in an epoch.

    Rows that are left at an epoch's end, fewer than a batch, are dropped. `state_dict` between two batches carries the
    buffer, the state of chance and the place in the text: another stream over the same text that loads it goes on with
    the same batches, bit for bit. `close`, or the end of a `with` block, stops the thread that works ahead.
    """

    def __init__(
        self,
        reader: Reader,
        windows: Text,
        buffer: MixingBuffer,
        *,
        tokens: int | None = None,
        epochs: int = 1,
        at_once: int = 32,
        ahead: int = 1,
        spread: int = 0,
        seed: int = 0,
    ):
        """`spread` as for `stream`; the order it makes is drawn from the seed, anew in each epoch."""
        for name, value, least in (
            ("epochs", epochs, 1), ("at_once", at_once, 1), ("ahead", ahead, 0), ("spread", spread, 0),
        ):  # fmt: skip
            if value < least:
                raise Refusal(f"{name} is {value}; give at least {least}")
        if tokens is not None and tokens < buffer.batch:
            raise Refusal(f"tokens is {tokens}, fewer than one batch of {buffer.batch}; give more, or lower the batch")
        self.reader, self.windows, self.buffer = reader, windows, buffer
        self.tokens, self.epochs, self.at_once, self.ahead = tokens, epochs, at_once, ahead
        self.spread, self.seed = spread, seed
        self.epoch = self.windows_read = self.rows_read = 0  # the last two in this epoch
        self.dropped: dict[str, int] = {}  # places, by filter, over all epochs
        self.inspection = Inspection()
        self._passes: Iterator[Pass] | None = None

    # ------------------------------------------------------------ going through it

    def __next__(self) -> Batch:
        """Raises NotFinite and Refusal as the passes do, and Refusal for a text too short to fill one batch."""
        try:
            while not self.buffer.ready:
                if self.epoch == self.epochs:
                    raise StopIteration
                self._refill()
        except BaseException:
            self.close()
            raise
        return batch_of(self.buffer.serve())

    def _refill(self) -> None:
        """Take one more pass into the buffer, or end the epoch."""
        if self.tokens is not None and self.rows_read >= self.tokens:
            return self._end()
        self._passes = self._passes or self._open()
        given = next(self._passes, None)
        return self._end() if given is None else self._take(given)

    def _take(self, given: Pass) -> None:
        self.inspection.see(given)
        which = given.kept if self.tokens is None else given.kept[: self.tokens - self.rows_read]
        self.buffer.add(given.values, which)
        self.buffer.copied += given.copied
        self.windows_read, self.rows_read = self.windows_read + given.windows, self.rows_read + len(which)
        for name, count in given.dropped.items():
            self.dropped[name] = self.dropped.get(name, 0) + count

    def _open(self) -> Iterator[Pass]:
        """The passes from the place in the text where this stream is."""
        found = self.windows() if callable(self.windows) else self.windows
        found = spread_out(found, self.spread, f"{self.seed}, {self.epoch}")
        passes = self.reader.passes(found, self.at_once, self.windows_read)
        return Prefetch(passes, self.ahead) if self.ahead else passes

    def _end(self) -> None:
        """The end of an epoch."""
        if self.epoch and not self.windows_read:
            raise Refusal(
                f"the text could be gone through only once, not {self.epochs} times; "
                "give a list, or a function that makes the windows anew"
            )
        if not self.rows_read or self.inspection.windows == self.windows_read:  # not taken up half-way
            self.inspection.finish()
        self.buffer.drain()
        if not self.buffer.ready and not self.buffer.served:
            raise Refusal(
                f"{self.rows_read} rows are fewer than one batch of {self.buffer.batch}; "
                "give more text or lower the batch"
            )
        self.close()
        self.epoch, self.windows_read, self.rows_read, self.inspection = self.epoch + 1, 0, 0, Inspection()

    def close(self) -> None:
        """Stop working ahead. Whoever goes on takes up the text where this stream is."""
        if isinstance(self._passes, Prefetch):
            self._passes.close()
        self._passes = None

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ what it was like

    @property
    def served(self) -> int:
        """Rows served so far, over all epochs."""
        return self.buffer.served // len(self.reader.sites)

    @property
    def copies_per_row(self) -> float:
        """Rows copied for each row served: into the buffer, within it, and for another layout or precision."""
        return self.buffer.copied / max(1, self.buffer.served)

    # ------------------------------------------------------------ stopping and going on

    def state_dict(self) -> dict[str, Any]:
        """How far the text is read, what waits in the buffer, and what the stream is made of."""
        return {
            "buffer": self.buffer.state_dict(), "epoch": self.epoch, "windows_read": self.windows_read,
            "rows_read": self.rows_read, "dropped": dict(self.dropped), **self._made_of(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another was stopped. Raises Refusal where that was made with other arguments."""
        refuse_other(state, self._made_of())
        self.close()
        self.buffer.load_state_dict(state["buffer"])
        self.epoch, self.windows_read, self.rows_read = state["epoch"], state["windows_read"], state["rows_read"]
        self.dropped, self.inspection = dict(state["dropped"]), Inspection()

    def _made_of(self) -> dict[str, Any]:
        return {
            "sites": [site.name for site in self.reader.sites], "filters": [str(f) for f in self.reader.filters],
            "batch": self.buffer.batch, "size": self.buffer.size, "tokens": self.tokens, "at_once": self.at_once,
            "spread": self.spread, "seed": self.seed,
        }  # fmt: skip
