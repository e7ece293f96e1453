"""Dictionaries of activations under the masks that parts of weights are put to: a sparse autoencoder, a transcoder.

What a dictionary writes at a site stands in for the network, each component kept as far as its mask says, and its error
is the rest. Whether any combination of components that are said not to matter can be left out is then the same question
for latents and for parts of weights.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from microtome.core.component import Dictionary
from microtome.core.edit import Edit, written_site
from microtome.core.errors import Refusal
from microtome.core.inputs import Arrays, Inputs
from microtome.core.model import Model
from microtome.core.site import Site
from microtome.interventions.masks import Masks
from microtome.interventions.row_masked import RowMasked
from microtome.parameters.decomposed import Look
from microtome.parameters.gates import Gate, GateKind, Shape


class Spliced(nn.Module):
    """Dictionaries at work in a model, each with gates on its activities; only the gates are learnt.

    Each dictionary writes at one site. `output` is the site whose values are compared.
    """

    lead: tuple[int, ...] = ()

    def __init__(
        self,
        model: Model,
        dictionaries: Sequence[Dictionary],
        output: Site,
        kind: GateKind,
        generator: torch.Generator,
    ):
        super().__init__()
        self.model, self.output = model, output
        self._dictionaries = tuple(dictionaries)  # in a tuple: they are not learned
        self.names = [f"{type(d).__name__}@{written_site(d)}" for d in dictionaries]
        if len(set(self.names)) < len(self.names):
            raise Refusal(f"two dictionaries write at one site: {', '.join(self.names)}; keep one of them")
        self.gates = nn.ModuleList([kind.make(Shape((), len(d)), generator) for d in dictionaries])

    def look(self, x: Tensor | Inputs) -> Look:
        """The model as it is, activities and what the gates say of them."""
        given = as_inputs(x)
        sites = dict.fromkeys(s for d in self._dictionaries for s in (*d.reads, *d.writes))
        with torch.no_grad():
            trace = self.model.run(given, read=[*sites, self.output])
            activity = {n: trace.codes(d).dense() for n, d in zip(self.names, self._dictionaries, strict=True)}
        gate = {n: cast(Gate, g)(activity[n]) for n, g in zip(self.names, self.gates, strict=True)}
        return Look(trace[self.output], activity, gate)

    def run(self, x: Tensor | Inputs, masks: Masks) -> Tensor:
        """The output, each component kept as far as its mask says. Errors are dropped if the rest has no masks."""
        edits = [self._edit(d, *masks.at(n)) for n, d in zip(self.names, self._dictionaries, strict=True)]
        return self.model.run(as_inputs(x), read=[self.output], edit=edits)[self.output]

    def unfaithful(self) -> Tensor:
        """Nothing: a dictionary's error differs by input, and is masked as the rest of a weight is."""
        return torch.zeros(())

    def _edit(self, dictionary: Dictionary, mask: Tensor, rest: Tensor | None) -> Edit:
        nothing = mask.new_zeros(*mask.shape[:-1], 1)
        return RowMasked(written_site(dictionary), dictionary, mask, nothing if rest is None else rest)


def as_inputs(x: Tensor | Inputs) -> Inputs:
    """A tensor as the one input of a network."""
    return x if isinstance(x, Inputs) else Arrays((x,))
