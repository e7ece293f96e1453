"""Cross-layer transcoders: a latent reads one layer's input and writes the outputs of that layer and all later ones.

Ameisen et al. 2025, Circuit Tracing (Transformer Circuits).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.codes import Codes
from microtome.core.component import Directions
from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import Activation, Pre
from microtome.dictionaries.coder import Coder, Reading, fixed
from microtome.dictionaries.constraints import Constraint, UnitRows
from microtome.dictionaries.normalisation import Fixed, Normalisation


class CrossLayerTranscoder(Coder):
    """codes[l] = activation(W_enc[l] x'[l] + b_enc[l]);  ŷ'[m] = sum over l <= m of W_dec[l, m] codes[l] + b_dec[m].

    Component i of layer l is component l * width + i of the whole. A row of W_dec[l] holds what it writes at the
    layers l, l + 1, ..., side by side.
    """

    def __init__(
        self,
        reads: Sequence[Site],
        writes: Sequence[Site],
        d: int,
        width: int,
        activation: Callable[[], Activation],
        units_in: Sequence[Normalisation] | None = None,
        units_out: Sequence[Normalisation] | None = None,
        constraint: Constraint | None = None,
        *,
        generator: torch.Generator | None = None,
    ):
        """`width` latents for each layer; `activation` makes one for each. Raises Refusal where sites do not pair."""
        if len(reads) != len(writes):
            raise Refusal(f"{len(reads)} sites are read and {len(writes)} written; give one of each for every layer")
        super().__init__()
        layers = len(reads)
        self.reads, self.writes, self.d, self.each = tuple(reads), tuple(writes), d, width
        self.constraint = constraint or UnitRows()
        self.activations = nn.ModuleList(activation() for _ in reads)
        self.units_in = nn.ModuleList(fixed(u, d) for u in units_in or [None] * layers)
        self.units_out = nn.ModuleList(fixed(u, d) for u in units_out or [None] * layers)
        unit = nn.functional.normalize
        self.W_enc = nn.Parameter(unit(torch.randn(layers, width, d, generator=generator), dim=2))
        self.b_enc = nn.Parameter(torch.zeros(layers, width))
        rows = (torch.randn(width, (layers - layer) * d, generator=generator) for layer in range(layers))
        self.W_dec = nn.ParameterList(unit(row, dim=1) for row in rows)
        self.b_dec = nn.Parameter(torch.zeros(layers, d))
        self.eval()

    def __len__(self) -> int:
        return len(self.reads) * self.each

    def readings(self, x: Float[Tensor, "layer ... d"]) -> list[Reading]:
        return [
            Reading(Pre(W, b, unit(part)), activation)
            for W, b, part, unit, activation in zip(
                self.W_enc, self.b_enc, x, self.units_in, self._activations(), strict=True
            )
        ]

    def _activations(self) -> list[Activation]:
        return [a for a in self.activations if isinstance(a, Activation)]

    def _outputs(self) -> list[Fixed]:
        return [u for u in self.units_out if isinstance(u, Fixed)]

    def decode(self, codes: Codes) -> Float[Tensor, "layer ... d"]:
        written = self._written(codes, list(self.W_dec))
        biased = [part + b for part, b in zip(written, self.b_dec, strict=True)]
        return torch.stack([unit.undo(part) for unit, part in zip(self._outputs(), biased, strict=True)])

    def _written(self, codes: Codes, rows: Sequence[Tensor]) -> list[Tensor]:
        """What reaches each layer in its own units, before the bias; `rows` is W_dec, or some rows of it."""
        layers, start = len(self.reads), 0
        written = [self.b_dec.new_zeros(*codes.shape, self.d) for _ in range(layers)]
        for layer, weights in enumerate(rows):
            here = codes.part(start, start + len(weights)).times(weights)
            start += len(weights)
            for later, part in enumerate(here.split(self.d, -1), layer):
                written[later] = written[later] + part
        return written

    def writing_of(self, which: Tensor, codes: Codes) -> Float[Tensor, "layer ... d"]:
        by_layer = [which[which // self.each == layer] % self.each for layer in range(len(self.reads))]
        written = self._written(codes, [W[i] for W, i in zip(self.W_dec, by_layer, strict=True)])
        flat = [unit.writing(part.reshape(-1, self.d)) for unit, part in zip(self._outputs(), written, strict=True)]
        return torch.stack(flat).view(len(self.reads), *codes.shape, self.d)

    def contribution(self, codes: Codes, component: int) -> Float[Tensor, "layer ... d"]:
        write = self.directions().write[:, component, 0]
        return torch.stack([codes.of(component)[..., None] * part for part in write])

    @property
    def lengths(self) -> Float[Tensor, "components"]:
        """Over all layers that a component writes at, as one vector: the penalty of the paper."""
        return torch.cat([W.norm(dim=1) for W in self.W_dec])

    def constrain(self) -> None:
        for weights, activation in zip(self.W_dec, self._activations(), strict=True):
            self.constraint.hold(weights)
            activation.constrain()

    def directions(self) -> Directions:
        """In the units of the sites. Mostly zeros: a component reads at one layer and writes at none before it."""
        layers, n = len(self.reads), self.each
        read = self.W_enc.new_zeros(layers, layers * n, self.d)
        write = torch.zeros_like(read)
        for layer, (unit, weights) in enumerate(zip(self.units_in, self.W_dec, strict=True)):
            mine = slice(layer * n, (layer + 1) * n)
            read[layer, mine] = unit.reading(self.W_enc[layer]) if isinstance(unit, Fixed) else self.W_enc[layer]
            for later, part in enumerate(weights.split(self.d, 1), layer):
                write[later, mine] = self._outputs()[later].writing(part)
        return Directions(read[:, :, None], write[:, :, None])
