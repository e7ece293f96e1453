"""Where a catalogue's text holds which words: windows as one text each, and places in them as tokens."""

from functools import cached_property

import numpy as np

from microtome.store.catalog import Catalog

MOST = 500  # places of a passage that are looked at


class Passages:
    """The windows of one catalogue, read when first asked for and kept."""

    def __init__(self, catalog: Catalog):
        self.catalog = catalog

    @cached_property
    def texts(self) -> list[str]:
        words = self.catalog.vocabulary
        return ["".join(words[i] for i in row) for row in self.catalog.windows["tokens"].tolist()]

    def places(self, text: str, most: int = MOST) -> np.ndarray:
        """The tokens that lie inside this passage, at its first so many places; position 0 of a window never counts."""
        found: list[int] = []
        for window, held in enumerate(self.texts if text else ()):
            start = held.find(text)
            while start >= 0 and most:
                found += self._tokens(window, start, start + len(text))
                most, start = most - 1, held.find(text, start + len(text))
        return np.array(sorted(set(found)), np.int64)

    def _tokens(self, window: int, start: int, stop: int) -> list[int]:
        """Those that overlap the letters from `start` to `stop` of a window."""
        words, row = self.catalog.vocabulary, self.catalog.windows["tokens"][window].tolist()
        ends = np.cumsum([len(words[i]) for i in row])
        first, last = np.searchsorted(ends, start, side="right"), np.searchsorted(ends, stop - 1, side="right")
        return [window * self.catalog.context + place for place in range(max(1, first), last + 1)]
