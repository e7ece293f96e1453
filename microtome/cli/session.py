"""A model and a dictionary behind the browser's pages: text in, activations out, all in plain values."""

from pathlib import Path
from typing import cast

import torch

from microtome.core.codes import Codes
from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.session import Firing
from microtome.data.windows import pieces
from microtome.dictionaries.files import load_dictionary
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.store.records import Run


class LiveSession:
    """Answers `core.session.Session` for one run."""

    def __init__(self, model: HookedModel, dictionary: Dictionary):
        self.model, self.dictionary = model, dictionary

    @torch.no_grad()
    def _codes(self, text: str) -> tuple[list[str], Codes]:
        inputs = cast(Tokens, self.model.inputs(text))
        most = getattr(self.model.module.config, "max_position_embeddings", None)
        if most is not None and inputs.ids.shape[1] > most:
            raise Refusal(f"the text has {inputs.ids.shape[1]} tokens, and the model takes {most}; give a shorter one")
        trace = self.model.run(inputs, read=self.dictionary.reads)
        tokens = pieces(self.model.tokenizer, inputs.ids[0].tolist())
        return tokens, trace.codes(self.dictionary)

    def fire(self, text: str, top: int) -> Firing:
        tokens, codes = self._codes(text)
        best = codes.top(top)
        order = best.values[0].argsort(-1, descending=True)
        values, components = (x[0].gather(-1, order).tolist() for x in (best.values, best.indices))
        kept = [
            [(c, v) for c, v in zip(cs, vs, strict=True) if v > 0] for cs, vs in zip(components, values, strict=True)
        ]
        return Firing(tokens, [[c for c, _ in row] for row in kept], [[v for _, v in row] for row in kept])

    def activity(self, text: str, component: int) -> tuple[list[str], list[float]]:
        tokens, codes = self._codes(text)
        return tokens, codes.of(component)[0].tolist()


def open_session(folder: Path) -> LiveSession:
    """The session of a run folder: its model, and its dictionary."""
    run = Run.read(folder)
    return LiveSession(load(run.model), load_dictionary(folder / "dictionary"))
