"""What a run reads: its model, and windows of its text. Some is to learn from, some stays unseen until it judges."""

from collections.abc import Iterable, Iterator
from functools import cached_property

from microtome.cli.settings import Settings
from microtome.core.errors import Refusal
from microtome.data import stdlib
from microtome.data.labels import label_tokens
from microtome.data.text import Document, Part, text
from microtome.data.windows import Text, Tokenizer, Window, gather, pieces, shuffled, windows
from microtome.models.hooked import HookedModel
from microtome.models.load import load


class Reading:
    """A model and its text, loaded when they are first asked for."""

    def __init__(self, settings: Settings):
        self.settings = settings

    @cached_property
    def model(self) -> HookedModel:
        return load(self.settings.model, device=self.settings.device)

    @cached_property
    def context(self) -> int:
        most = getattr(self.model.module.config, "max_position_embeddings", 256)
        if (self.settings.context or 0) > most:
            raise Refusal(
                f"--context {self.settings.context} is more than the {most} positions of {self.settings.model}"
            )
        return self.settings.context or min(256, most)

    def documents(self, part: Part) -> list[Document]:
        given = self.settings.text
        found = shuffled(text(given, part) if given else stdlib.modules(part), self.settings.seed)
        if not found:
            raise Refusal(f"the text has no {part.replace('_', '-')} documents; give more files, or longer ones")
        return found

    def windows(self, part: Part, labelled: bool = False) -> Iterator[Window]:
        return self._windows(self.documents(part), labelled)

    def _windows(self, found: Iterable[Document], labelled: bool) -> Iterator[Window]:
        return windows(found, self.tokenizer, self.context, label_tokens if labelled else None)

    @property
    def tokenizer(self) -> Tokenizer:
        if self.model.tokenizer is None:
            raise Refusal(f"{self.settings.model} has no tokenizer, so it cannot read text; add one to its folder")
        return self.model.tokenizer

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
        found = self._windows(reversed(self.documents("train")), self.labelled)
        return gather(found, max(1, self.settings.proposals // (self.context - 1)))

    @property
    def about_held_out(self) -> str:
        return "held-out tenth of " + (", ".join(self.settings.text) or "the standard library")

    @property
    def vocabulary(self) -> list[str]:
        """The text of every token that the model can predict; some models predict more than their tokenizer knows."""
        known = len(self.model.tokenizer)
        unknown = range(known, max(known, getattr(self.model.module.config, "vocab_size", known)))
        return [*pieces(self.tokenizer, range(known)), *(f"<{i}>" for i in unknown)]
