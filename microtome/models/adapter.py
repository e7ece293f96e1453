"""How a named site is found in an unmodified module: which hook shows its tensor, and in what shape.

A place attaches a visitor (a function from the tensor that arrives to the tensor that goes on) during a call.
Some places show a part of what another place holds (one head's columns, queries out of a fused projection); what a
visitor changes in that part is put back into the whole.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from microtome.core.site import Site

Visit = Callable[[Tensor], Tensor]
Remove = Callable[[], None]


class Place(ABC):
    """Where a site's tensor passes by."""

    @property
    def looks_back(self) -> bool:
        """Whether the tensor there holds earlier positions too when earlier keys and values come from a cache."""
        return False

    @abstractmethod
    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        """Call `visit` with the tensor each time it passes; the returned function undoes this."""


# ---------------------------------------------------------------- at a module


@dataclass(frozen=True)
class Into(Place):
    """The first argument of a module. `first`: ahead of the other visitors there."""

    path: str
    first: bool = False

    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        module, hook = root.get_submodule(self.path), partial(before, visit)
        return module.register_forward_pre_hook(hook, with_kwargs=True, prepend=self.first).remove


@dataclass(frozen=True)
class OutOf(Place):
    """What a module returns: the tensor, the first of a tuple, or one field of an output record."""

    path: str
    field: str | None = None

    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        hook = partial(after, visit) if self.field is None else partial(after_field, visit, self.field)
        return root.get_submodule(self.path).register_forward_hook(hook).remove


# Hooks are module-level functions: one that is made anew for every run would be type-checked anew in every test.


def before(visit: Visit, _: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """The arguments with their first tensor changed; None (leave them) where nothing changed."""
    name = None if args else next(n for n, value in kwargs.items() if isinstance(value, Tensor))
    x = args[0] if name is None else kwargs[name]
    new = visit(x)
    if new is x:
        return None
    return ((new, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: new})


def after(visit: Visit, _: nn.Module, args: tuple, out: Any) -> Any:
    """The same output with its tensor, or the first of its tuple, changed; None (leave it) where nothing changed."""
    x = out[0] if isinstance(out, tuple) else out
    new = visit(x)
    if new is x:
        return None
    return (new, *out[1:]) if isinstance(out, tuple) else new


def after_field(visit: Visit, field: str, _: nn.Module, args: tuple, out: Any) -> Any:
    """The same output record, one of its fields as the visitor left it."""
    out[field] = visit(out[field])
    return out


def remove_all(removes: tuple[Remove, ...]) -> None:
    """Take away several hooks."""
    for remove in removes:
        remove()


@dataclass(frozen=True)
class Stream(Place):
    """The residual stream, at a place where a branch reads it.

    A hook there changes only what the branch is given. So that an edit is one of the stream, what it added is also
    added to what the block returns: exactly what would have gone on past the branch.
    """

    inner: Place
    block: str

    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        added: list[Tensor] = []
        past = root.get_submodule(self.block).register_forward_hook(partial(add_past, added), prepend=True)
        return partial(remove_all, (past.remove, self.inner.attach(root, partial(note_added, visit, added))))


def note_added(visit: Visit, added: list[Tensor], x: Tensor) -> Tensor:
    """Notes what a visitor added to the stream, for the block's output."""
    new = visit(x)
    added[:] = [new - x] if new is not x or new.requires_grad else []
    return new


def add_past(added: list[Tensor], module: nn.Module, args: tuple, out: Any) -> Any:
    """Adds to a block's output what was added where its branch reads."""
    return after(lambda x: x + added.pop(), module, args, out) if added else None


# ---------------------------------------------------------------- a part of what stands elsewhere


class Part(Place):
    """A part, or a view, of what another place holds."""

    inner: Place

    @abstractmethod
    def take(self, x: Tensor) -> Tensor:
        """The part."""

    @abstractmethod
    def put(self, x: Tensor, part: Tensor) -> Tensor:
        """The whole, with this part in it."""

    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        return self.inner.attach(root, partial(self.through, visit))

    def through(self, visit: Visit, x: Tensor) -> Tensor:
        """The whole as a visitor left its part."""
        part = self.take(x)
        new = visit(part)
        # An unchanged part goes back only where a gradient must find its way through it.
        return x if new is part and not new.requires_grad else self.put(x, new)


@dataclass(frozen=True)
class Heads(Part):
    """The last axis, split into heads."""

    inner: Place
    heads: int

    def take(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))

    def put(self, x: Tensor, part: Tensor) -> Tensor:
        return part.flatten(-2)


@dataclass(frozen=True)
class Fused(Part):
    """One of several projections whose columns alternate head by head."""

    inner: Place
    heads: int
    index: int
    parts: int = 3

    def take(self, x: Tensor) -> Tensor:
        return rearrange(x, "... (head part d) -> part ... head d", head=self.heads, part=self.parts)[self.index]

    def put(self, x: Tensor, part: Tensor) -> Tensor:
        each = list(rearrange(x, "... (head part d) -> part ... head d", head=self.heads, part=self.parts))
        each[self.index] = part
        return rearrange(torch.stack(each), "part ... head d -> ... (head part d)")


@dataclass(frozen=True)
class Columns(Part):
    """A range of the last axis."""

    inner: Place
    start: int
    stop: int

    def take(self, x: Tensor) -> Tensor:
        return x[..., self.start : self.stop]

    def put(self, x: Tensor, part: Tensor) -> Tensor:
        return torch.cat((x[..., : self.start], part, x[..., self.stop :]), -1)


@dataclass(frozen=True)
class PerToken(Place):
    """What stands in one row per token, the batch flattened away; `block` is the module given it unflattened."""

    inner: Place
    block: str

    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        rows: list[int] = []
        noting = root.get_submodule(self.block).register_forward_pre_hook(
            partial(note_rows, rows), with_kwargs=True, prepend=True
        )
        return partial(remove_all, (noting.remove, self.inner.attach(root, partial(unflattened, visit, rows))))


def note_rows(rows: list[int], _: nn.Module, args: tuple, kwargs: dict) -> None:
    """Notes how many rows the block was given, before they are flattened."""
    rows[:] = [len(args[0] if args else kwargs["hidden_states"])]


def unflattened(visit: Visit, rows: list[int], x: Tensor) -> Tensor:
    """What stands in one row per token, shown to a visitor by rows."""
    if x.ndim == 3:  # a release that does not flatten
        return visit(x)
    by_row = x.unflatten(0, (rows[0], -1))
    new = visit(by_row)
    return x if new is by_row and not new.requires_grad else new.flatten(0, 1)


# ---------------------------------------------------------------- what a family has


class Sited(NamedTuple):
    """A site and where it is."""

    site: Site
    place: Place


@dataclass(frozen=True)
class Equation:
    """`target` is the sum of the sources, put through the module `through` where one is named, then capped."""

    target: str
    sources: tuple[str, ...]
    through: tuple[str, ...] = ()
    softcap: float | None = None
    at: int | None = None  # only this position of the sources counts

    def __str__(self) -> str:
        total = " + ".join(self.sources) + ("" if self.at is None else f" at {self.at}")
        for path in self.through:
            total = f"{path}({total})"
        return f"{self.target} = {total if self.softcap is None else f'softcap({total})'}"


@dataclass(frozen=True)
class Family:
    """What a model family offers: sites in the order of the forward pass, why it lacks others, what must hold."""

    name: str
    sited: dict[str, Sited]
    lacking: dict[str, str] = field(default_factory=dict)
    equations: tuple[Equation, ...] = ()
