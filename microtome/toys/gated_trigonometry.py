"""Functions that are switched on and off, set by hand: each is made by neurons of its own in two layers.

After Braun et al. 2025, Interpretability in Parameter Space (arXiv 2501.14926): a number and one switch for each
function go in, the sum of the functions that are on comes out. The functions are sums of a cosine and a sine; a network
of ReLUs makes their interpolation through evenly spaced knots exactly, half of the knots in each layer.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from microtome.core.errors import Refusal
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.toys.toy import Toy

X = Site("x", "batch d")
SPAN = 5.0  # the number that goes in is from 0 to here
SHUT = 10.0  # what a switch that is off takes from a pre-activation: more than any of them reaches


class GatedTrigonometry(Toy):
    """r = (number, switches, 0);  r + w_out relu(w_in r + b_in), twice;  y is the last entry.

    x is the number and then one switch (0 or 1) for each function. Neurons of a function have zero weights where they
    would read another one's switch, so its weights in both layers are one part: `parts()`.
    """

    seeds = None
    heights: Tensor
    sites = {
        "x": ("", "in", "batch d"), "mlp_act.0": ("act.0", "out", "batch neuron"),
        "mlp_act.1": ("act.1", "out", "batch neuron"), "y": ("", "out", "batch d"),
    }  # fmt: skip

    def __init__(self, functions: int = 4, neurons: int = 10, *, generator: torch.Generator) -> None:
        """`neurons` for each function, an even number: the first holds its value at 0, each other one knot."""
        super().__init__()
        if functions < 1 or neurons < 2 or neurons % 2:
            raise Refusal(
                f"{functions} functions of {neurons} neurons: give one or more, and an even number of neurons"
            )
        self.functions, self.knots = functions, neurons - 1
        self.register_buffer("heights", trigonometric(functions, self.places(generator.device), generator))
        d, each = functions + 2, neurons // 2
        shapes = {"w_in": (functions * each, d), "b_in": (functions * each,), "w_out": (d, functions * each)}
        for name, shape in shapes.items():
            parts = [nn.Parameter(self.heights.new_zeros(shape)) for _ in range(2)]
            setattr(self, name, nn.ParameterList(parts))
        self.act = nn.ModuleList([nn.Identity(), nn.Identity()])
        with torch.no_grad():
            for function in range(functions):
                self.set(function, each)

    w_in: nn.ParameterList
    b_in: nn.ParameterList
    w_out: nn.ParameterList

    def places(self, device: torch.device | str = "cpu") -> Float[Tensor, "knots_and_end"]:
        """Where the slope changes, from 0, and the end of the span."""
        return torch.linspace(0.0, SPAN, self.knots + 1, device=device)

    def set(self, function: int, each: int) -> None:
        """Write the neurons of one function: its value at 0, then the changes of its slope, by turns in both layers."""
        places, heights = self.places(self.heights.device), self.heights[function]
        slopes = heights.diff() / places.diff()
        changes = slopes.diff(prepend=slopes.new_zeros(1))
        for neuron in range(2 * each):
            layer, row = neuron % 2, function * each + neuron // 2
            w_in, b_in, w_out = self.w_in[layer], self.b_in[layer], self.w_out[layer]
            if neuron == 0:  # the switch itself
                w_in[row, 1 + function], w_out[-1, row] = 1.0, heights[0]
            else:  # relu(number - knot) while the switch is on
                w_in[row, 0], w_in[row, 1 + function] = 1.0, SHUT
                b_in[row], w_out[-1, row] = -SHUT - places[neuron - 1], changes[neuron - 1]

    def forward(self, x: Float[Tensor, "... number_and_switches"]) -> Float[Tensor, "... 1"]:
        r = F.pad(x, (0, 1))
        for act, w_in, b_in, w_out in zip(self.act, self.w_in, self.b_in, self.w_out, strict=True):
            r = r + act(F.relu(r @ w_in.mT + b_in)) @ w_out.mT
        return r[..., -1:]

    def target(self, x: Float[Tensor, "... number_and_switches"]) -> Float[Tensor, "... 1"]:
        """The sum of the interpolated functions that are on."""
        places = self.places(x.device)
        number = x[..., 0].clamp(0.0, SPAN)
        right = torch.searchsorted(places, number.contiguous()).clamp(1, self.knots)
        share = (number - places[right - 1]) / (places[right] - places[right - 1])
        values = self.heights[:, right - 1] * (1 - share) + self.heights[:, right] * share
        return (values.movedim(0, -1) * x[..., 1:]).sum(-1, keepdim=True)

    def truth(self) -> Linear:
        """A component for each function: its switch. It writes nothing, as what is added depends on the number too."""
        switches = torch.eye(1 + self.functions, device=self.heights.device)[1:]
        return Linear(X, None, switches)

    def parts(self) -> dict[str, Float[Tensor, "functions *shape"]]:
        """Every weight as a sum of one part for each function, zero but at its own neurons."""
        each = (self.knots + 1) // 2
        owner = torch.arange(self.functions, device=self.heights.device).repeat_interleave(each)
        own = (owner == torch.arange(self.functions, device=owner.device)[:, None]).float()
        masks = {"w_in": own[:, :, None], "b_in": own, "w_out": own[:, None, :]}
        return {name: weight.detach() * masks[name.split(".")[0]] for name, weight in self.named_parameters()}

    def draw(self, rows: int, generator: torch.Generator, probability: float = 0.25) -> Float[Tensor, "rows inputs"]:
        """Numbers spread evenly over the span, each switch on with this probability."""
        drawn = torch.rand(rows, 1 + self.functions, generator=generator, device=generator.device)
        return torch.cat([drawn[:, :1] * SPAN, (drawn[:, 1:] < probability).float()], 1)


def trigonometric(
    functions: int, places: Float[Tensor, "places"], generator: torch.Generator
) -> Float[Tensor, "functions places"]:
    """a cos(b x + c) + d sin(e x + f) + g at these places, the constants drawn for each function.

    a, d, g are from -1 to 1, b, e from .1 to 1, c, f from -pi to pi.
    """
    low = places.new_tensor([-1.0, 0.1, -torch.pi, -1.0, 0.1, -torch.pi, -1.0])
    high = places.new_tensor([1.0, 1.0, torch.pi, 1.0, 1.0, torch.pi, 1.0])
    drawn = torch.rand(functions, 7, generator=generator, device=generator.device) * (high - low) + low
    a, b, c, d, e, f, g = (part[:, None] for part in drawn.unbind(1))
    return a * torch.cos(b * places + c) + d * torch.sin(e * places + f) + g
