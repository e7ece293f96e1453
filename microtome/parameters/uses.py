"""Every product with a chosen weight, seen and if wished made another way, in a module that is left as it is.

A weight may stand in a layer or be a raw parameter that forward multiplies by: linear, matmul (`x @ w.mT`), embedding,
convolution and addmm are known. Any other use of a chosen weight is refused, as it would escape what is asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from microtome.core.errors import Refusal

TURNING = (torch.Tensor.mT.__get__, torch.Tensor.T.__get__, torch.Tensor.t, torch.t)  # pyright: ignore
PRODUCTS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.bmm, torch.Tensor.mm)


@dataclass(frozen=True)
class Convolved:
    """How a convolution moves over its input."""

    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1


@dataclass(frozen=True)
class Use:
    """One product: which parameter, whether its matrix (out, in) is used turned, its layer's bias, and the input.

    The input has the read axis last, but for a convolution, which has its channels first and whose `moves` is not None.
    `plain` makes the product as the module does; it takes the bias as an argument, so that a bias can be left out.
    """

    name: str
    x: Tensor
    bias: Tensor | None
    turned: bool = False
    moves: Convolved | None = None
    kernel: tuple[int, ...] = ()
    plain: Callable[[Tensor | None], Tensor] = field(repr=False, default=lambda bias: torch.empty(0))


Visit = Callable[[Use], Tensor]


class Using(TorchFunctionMode):
    """While it is entered, each product with a weight of these (parameters by name) is what `visit` makes of it."""

    def __init__(self, module: nn.Module, names: Mapping[str, bool], visit: Visit):
        """`names` says of each parameter whether it stands as (in, out)."""
        super().__init__()
        self.visit = visit
        self.held: dict[int, tuple[Tensor, str, bool]] = {}
        for name, reads_first in names.items():
            self._hold(module.get_parameter(name), name, reads_first)

    def _hold(self, x: Tensor, name: str, reads_first: bool) -> None:
        self.held[id(x)] = x, name, reads_first

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        met = [held for x in (*args, *kwargs.values()) if (held := self.held.get(id(x)))]
        if not met:
            return func(*args, **kwargs)
        if func in TURNING or (func in (torch.transpose, torch.Tensor.transpose) and last_two(args)):
            return self._turned(func(*args, **kwargs), met[0])
        use = self._use(func, args, kwargs)
        if use is not None:
            return self.visit(use)
        made = func(*args, **kwargs)
        if isinstance(made, Tensor):
            raise Refusal(
                f"{met[0][1]} is used by {getattr(func, '__name__', func)}, which is no product that is known; write "
                "it as x @ w.mT or a linear layer, or leave this weight out"
            )
        return made

    def _turned(self, made: Tensor, held: tuple[Tensor, str, bool]) -> Tensor:
        self._hold(made, held[1], not held[2])
        return made

    def _use(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Use | None:
        if func is F.linear:
            x, w, bias = bound(("input", "weight", "bias"), args, kwargs)
            if id(w) not in self.held or id(x) in self.held:
                return None
            _, name, first = self.held[id(w)]
            return Use(name, x, bias, first, plain=lambda b: F.linear(x, w, b))
        if func in PRODUCTS:
            x, w = args[:2]
            return self._product(x, w, None, lambda b: x @ w)
        if func is torch.addmm:
            bias, x, w = args[:3]
            return self._product(x, w, bias, lambda b: x @ w if b is None else torch.addmm(b, x, w))
        if func is F.embedding:
            ids, w = bound(("input", "weight"), args, kwargs)
            return self._product(ids, w, None, lambda b: w[ids])
        if func in (F.conv1d, F.conv2d):
            return self._convolution(func, *bound(CONVOLUTION, args, kwargs)[:6])
        return None

    def _product(self, x: Any, w: Any, bias: Tensor | None, plain: Callable[[Tensor | None], Tensor]) -> Use | None:
        """x @ w: the weight stands as (in, out), or a matrix (out, in) is used turned."""
        if id(w) not in self.held or id(x) in self.held:
            return None
        _, name, first = self.held[id(w)]
        return Use(name, x, bias, not first, plain=plain)

    def _convolution(self, func: Any, x: Tensor, w: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any) -> Use:
        moves = Convolved(stride or 1, padding or 0, dilation or 1)
        name = self.held[id(w)][1]
        kernel = tuple(w.shape[2:])
        return Use(
            name, x, bias, False, moves, kernel, lambda b: func(x, w, b, moves.stride, moves.padding, moves.dilation)
        )


CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def bound(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments of these names, wherever they stand; None where one was left out."""
    return [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]


def last_two(args: tuple[Any, ...]) -> bool:
    """Whether a call of `transpose` is of the last two axes."""
    return len(args) == 3 and {a % args[0].ndim for a in args[1:]} == {args[0].ndim - 1, args[0].ndim - 2}
