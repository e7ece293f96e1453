"""What a run reads: its model, and windows of its text. Some is to learn from, some stays unseen until it judges."""

from collections.abc import Iterable, Iterator
from functools import cached_property

from microtome.cli.settings import Settings
from microtome.data.corpus import context_of, cut, documents
from microtome.data.labels import label_tokens
from microtome.data.spread import spread
from microtome.data.text import Document, Part
from microtome.data.windows import Text, Window, gather, pieces
from microtome.models.hooked import HookedModel
from microtome.models.load import load

WIDER = 4  # times the text that is wanted, out of which it is taken where it should be of many documents


class Reading:
    """A model and its text, loaded when they are first asked for."""

    def __init__(self, settings: Settings):
        self.settings = settings

    @cached_property
    def model(self) -> HookedModel:
        return load(self.settings.model, device=self.settings.device)

    @cached_property
    def context(self) -> int:
        return context_of(self.model, self.settings.context)

    def windows(self, part: Part, labelled: bool = False) -> Iterator[Window]:
        return self._cut(documents(self.settings.text, part, self.settings.seed), labelled)

    def _cut(self, found: Iterable[Document], labelled: bool) -> Iterator[Window]:
        return cut(self.model, found, self.settings.context, label_tokens if labelled else None)

    @cached_property
    def labelled(self) -> bool:
        """Whether the text is Python, whose syntax labels every token."""
        return all(path.endswith(".py") for path in self.settings.text)

    @cached_property
    def held_out(self) -> Text:
        return gather(self.windows("held_out", self.labelled), max(1, self.settings.held_out // (self.context - 1)))

    @cached_property
    def proposals(self) -> Text:
        """Text from which explanations are proposed: training documents, those first that were harvested last."""
        found = self._cut(reversed(documents(self.settings.text, "train", self.settings.seed)), self.labelled)
        return gather(found, max(1, self.settings.proposals // (self.context - 1)))

    def of_many(self, part: Part, tokens: int) -> Text:
        """So much text out of four times as much: windows of as many documents as that holds, the last ones first."""
        found = self._cut(reversed(documents(self.settings.text, part, self.settings.seed)), self.labelled)
        mixed = spread(found, WIDER * tokens, f"{self.settings.seed}")
        return gather(mixed, max(1, tokens // (self.context - 1)))

    @property
    def about_held_out(self) -> str:
        return "held-out tenth of " + (", ".join(self.settings.text) or "the standard library")

    @property
    def vocabulary(self) -> list[str]:
        """The text of every token that the model can predict; some models predict more than their tokenizer knows."""
        tokenizer = self.model.tokenizer
        known = len(tokenizer)
        unknown = range(known, max(known, getattr(self.model.module.config, "vocab_size", known)))
        return [*pieces(tokenizer, range(known)), *(f"<{i}>" for i in unknown)]
