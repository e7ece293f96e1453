"""How a named site is found in an unmodified module: which hook shows its tensor, and in what shape.

A place attaches a visitor (a function from the tensor that arrives to the tensor that goes on) for the length of a call.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from einops import rearrange
from torch import Tensor, nn

from microtome.core.site import Site

Visit = Callable[[Tensor], Tensor]
Remove = Callable[[], None]


class Place(ABC):
    """Where a site's tensor passes by."""

    @abstractmethod
    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        """Call `visit` with the tensor each time it passes; the returned function undoes this."""


@dataclass(frozen=True)
class Into(Place):
    """The first argument of a module."""

    path: str

    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        def hook(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            if args:
                return (visit(args[0]), *args[1:]), kwargs
            name = next(n for n, value in kwargs.items() if isinstance(value, Tensor))
            return args, {**kwargs, name: visit(kwargs[name])}

        return root.get_submodule(self.path).register_forward_pre_hook(hook, with_kwargs=True).remove


@dataclass(frozen=True)
class OutOf(Place):
    """What a module returns: the tensor, the first of a tuple, or one field of an output record."""

    path: str
    field: str | None = None

    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        def hook(_: nn.Module, args: tuple, out: Any) -> Any:
            if self.field is not None:
                out[self.field] = visit(out[self.field])
                return out
            return (visit(out[0]), *out[1:]) if isinstance(out, tuple) else visit(out)

        return root.get_submodule(self.path).register_forward_hook(hook).remove


@dataclass(frozen=True)
class Heads(Place):
    """Another place's last axis, split into heads."""

    inner: Place
    heads: int

    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        def split(x: Tensor) -> Tensor:
            by_head = rearrange(x, "... (head d) -> ... head d", head=self.heads)
            return rearrange(visit(by_head), "... head d -> ... (head d)")

        return self.inner.attach(root, split)


class Sited(NamedTuple):
    """A site and where it is."""

    site: Site
    place: Place


@dataclass(frozen=True)
class Family:
    """What a model family offers: its sites in the order of the forward pass, and why it lacks the others."""

    name: str
    sited: dict[str, Sited]
    lacking: dict[str, str] = field(default_factory=dict)
