"""An unmodified module with named sites. Hooks exist only during a call."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from microtome.core.editing import Edit, compose
from microtome.core.errors import NoSuchSite, Refusal, SiteNeverFired, SiteWithdrawn
from microtome.core.hook_names import canonical
from microtome.core.inputs import Arrays, Inputs, Tokens
from microtome.core.site import Site
from microtome.core.trace import Trace
from microtome.models.adapter import Family, Into, OutOf, Place, Sited
from microtome.models.attention import Attended, attending

if TYPE_CHECKING:
    from microtome.models.remembering import Remembered
    from microtome.models.verification import Verification

WHOLE_OUTPUT = ("logits", "output")  # there is nothing left to skip after these


class Stop(Exception):
    """Everything that was asked for has been seen."""


class HookedModel:
    """A network with named sites that can be read and edited.

    `family` names the sites it is known to have; besides these, any module path is a site: `layers.2.mlp` is what that
    module returns, `layers.2.mlp.in` what it is given.
    """

    def __init__(self, module: nn.Module, family: Family, tokenizer: Any = None, name: str = "model") -> None:
        self.module, self.family, self.tokenizer, self.name = module.eval(), family, tokenizer, name
        self.withdrawn: dict[str, str] = dict(family.lacking)
        self.lock = RLock()
        self.forms: dict[str, Callable[[Tensor], Any]] = {}  # how each block returns its stream, once it was seen
        self.remembers: bool | None = (
            None  # whether a pass over the last columns ends where a whole one does, once tried
        )

    @property
    def context(self) -> int | None:
        """How many positions it takes at once, where its configuration says."""
        return getattr(getattr(self.module, "config", None), "max_position_embeddings", None)

    # ------------------------------------------------------------ sites

    def site(self, name: str, axes: str | None = None) -> Site:
        """The site of this name. `axes` names the axes of a module path's tensor where the guess is wrong."""
        return self.locate(name, axes).site

    def sites(self, pattern: str = "*") -> list[Site]:
        """The sites whose canonical names match, in the order of the network. Raises NoSuchSite where none does."""
        names = [n for n in self.family.sited if fnmatchcase(n, pattern) and n not in self.withdrawn]
        if not names:
            withdrawn = [n for n in self.withdrawn if fnmatchcase(n, pattern)]
            raise self._withdrawn(withdrawn[0]) if withdrawn else NoSuchSite.named(pattern, self.family.sited)
        return [self.family.sited[n].site for n in names]

    def locate(self, name: str, axes: str | None = None) -> Sited:
        """The site of this name, an alias or a module path, and where it is."""
        name = canonical(name, self.family.sited)
        if name in self.withdrawn:
            raise self._withdrawn(name)
        if name in self.family.sited:
            return self.family.sited[name]
        return self._by_path(name, axes)

    def _withdrawn(self, name: str) -> SiteWithdrawn:
        return SiteWithdrawn(f"site {name!r} is not offered on this model ({self.family.name}): {self.withdrawn[name]}")

    def _by_path(self, name: str, axes: str | None) -> Sited:
        path, into = (name.removesuffix(".in"), True) if name.endswith(".in") else (name.removesuffix(".out"), False)
        try:
            module = self.module.get_submodule(path)
        except AttributeError:
            raise NoSuchSite.named(name, [*self.family.sited, *(n for n, _ in self.module.named_modules())]) from None
        place: Place = Into(path) if into else OutOf(path)
        return Sited(Site(name, axes or self._guess_axes(module, into)), place)

    def _guess_axes(self, module: nn.Module, into: bool) -> str:
        """Of a transformers model, rows of tokens; of others, what the last layer with a known shape gave before."""
        if hasattr(self.module, "config"):
            return "batch pos d"
        axes = next((GIVES[type(m)] for m in self.module.modules() if type(m) in GIVES), "batch d")
        last = list(module.modules())[-1]
        for each in self.module.modules():
            if into and each is module:
                break
            axes = GIVES.get(type(each), axes)
            if each is last:
                break
        return axes

    # ------------------------------------------------------------ inputs

    def inputs(self, given: Inputs | Tensor | str | Sequence[str]) -> Inputs:
        """Texts become tokens (each begun as the tokenizer begins a text), a tensor one positional argument."""
        if isinstance(given, Inputs):
            return given.to(self.device)
        if isinstance(given, Tensor):
            return (
                Tokens.of(given)
                if hasattr(self.module, "config") and not given.is_floating_point()
                else Arrays((given,))
            )
        texts = [given] if isinstance(given, str) else list(given)
        return Tokens.of([self.encode(text) for text in texts]).to(self.device)

    def encode(self, text: str) -> list[int]:
        """Token ids of one text. Raises Refusal where the model has no tokenizer, or the text no tokens."""
        if self.tokenizer is None:
            raise Refusal(f"{self.name} has no tokenizer; give token ids (Tokens.of(rows)) in place of text")
        ids = self.tokenizer(text, add_special_tokens=True)["input_ids"]
        begin = self.tokenizer.bos_token_id
        if begin is not None and ids[:1] != [begin]:
            ids = [begin, *ids]
        if not ids:
            raise Refusal("the text is empty; give at least one token")
        return ids

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    # ------------------------------------------------------------ run

    def run(
        self,
        inputs: Inputs | Tensor | str | Sequence[str],
        *,
        read: Iterable[Site | str] | None = None,
        edit: Sequence[Edit] = (),
        leaves: Iterable[Site] = (),
    ) -> Trace:
        """One forward pass; see `core.model.Model.run`. Texts and tensors are accepted as `inputs` makes them."""
        batch = self.inputs(inputs)
        sites = [self.site(s) if isinstance(s, str) else s.whole for s in (["logits"] if read is None else read)]
        visitor = Visitor(self, sites, edit, leaves)
        visitor.forward(batch, batch.call)
        visitor.refuse_unseen()
        visitor.refuse_untouched()
        return visitor.left

    def resume(
        self,
        inputs: Inputs,
        layer: int = -1,
        stream: Tensor | None = None,
        *,
        read: Iterable[Site],
        edit: Sequence[Edit] = (),
        leaves: Iterable[Site] = (),
    ) -> Trace:
        """The rest of a forward pass; see `core.model.Resumable.resume`."""
        from microtome.models.resuming import resume

        return resume(self, self.inputs(inputs), layer, stream, read=list(read), edit=edit, leaves=leaves)

    def remember(self, inputs: Inputs) -> "Remembered | None":
        """A run of which later columns can be run again; see `core.model.Resumable.remember`."""
        from microtome.models.remembering import remember

        return remember(self, self.inputs(inputs))

    def weights(self) -> Iterator[Tensor]:
        """The network's own parameters."""
        return self.module.parameters()

    @contextmanager
    def quickened(self) -> Iterator[None]:
        """Runs at less cost for the length of the block; see `models.quickening`. Other threads wait for its end."""
        from microtome.models.quickening import quickened

        with self.lock, quickened(self.module):
            yield

    @contextmanager
    def hooks(self, visits: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
        """Attach these visitors, by site name, for the length of the block. Other threads wait for its end."""
        places = {name: self.locate(name).place for name in visits}
        roles = {p.role for p in places.values() if isinstance(p, Attended)}
        with self.lock, ExitStack() as stack:
            if roles:
                stack.enter_context(attending(self.module, roles))
            for name, visit in visits.items():
                stack.callback(places[name].attach(self.module, visit))
            yield

    # ------------------------------------------------------------ what stands in files of its own

    def generate(
        self,
        inputs: Inputs | Tensor | str | Sequence[str],
        *,
        tokens: int = 20,
        edit: Sequence[Edit] = (),
        cache: bool = True,
        temperature: float = 0.0,
        stop: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tokens:
        """The prompt and what the model says next; see `microtome.models.generate`."""
        from microtome.models.generate import generate

        return generate(
            self,
            self.inputs(inputs),
            tokens=tokens,
            edit=edit,
            cache=cache,
            temperature=temperature,
            stop=stop,
            generator=generator,
        )

    def verify(self, inputs: Inputs | Tensor | str | Sequence[str] | None = None) -> "Verification":
        """Prove the site table on this model and withdraw what fails; see `microtome.models.verify`."""
        from microtome.models.verify import verify

        return verify(self, None if inputs is None else self.inputs(inputs))


class Visitor:
    """What one run wants to see and change, and what it has met so far."""

    def __init__(
        self, model: HookedModel, read: Sequence[Site], edit: Sequence[Edit], leaves: Iterable[Site], stops: bool = True
    ) -> None:
        """`stops`: end the forward pass once everything has been seen."""
        self.model, self.edits, self.stops = model, list(edit), stops
        self.kept = {s.name for s in read}
        self.leaves = {s.name for s in leaves}
        needed = [s.whole for e in edit for s in (e.site, *e.needs)]
        self.wanted = {s.name: s for s in (*needed, *read)}
        self.touched = [0] * len(self.edits)

    def forward(self, batch: Inputs, call: Callable[[nn.Module], Any]) -> Any:
        """One pass over a batch (under a cache, over a chunk): what the module returned, None if it was stopped."""
        self.arrived, self.left = Trace(batch, {}, self.wanted), Trace(batch, {}, self.wanted)
        self.unseen = set(self.wanted)
        with self.model.hooks({name: self._visit(name) for name in self.wanted}):
            try:
                return call(self.model.module)
            except Stop:
                return None

    def _visit(self, name: str) -> Callable[[Tensor], Tensor]:
        edits = [(i, e) for i, e in enumerate(self.edits) if e.site.name == name]
        return partial(self._met, name, len(self.wanted[name].axes.split()), edits)

    def _met(self, name: str, axes: int, edits: list[tuple[int, Edit]], x: Tensor) -> Tensor:
        """What goes on from a site when `x` arrives there."""
        if name not in self.unseen:
            raise Refusal(f"site {name!r} was passed twice in one forward; name one of the modules inside it")
        if x.ndim != axes:
            self._refuse_axes(name, x)
        self.unseen.discard(name)
        self.arrived.values_by_name[name] = x
        if edits:
            x = self._edited(x, edits)
        if name in self.leaves:  # a tensor of its own, so that its gradient is not also that of whoever else holds this
            x = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()
        if name in self.kept:
            self.left.values_by_name[name] = x
        if not self.unseen and self.stops and name not in WHOLE_OUTPUT:
            raise Stop
        return x

    def _refuse_axes(self, name: str, x: Tensor) -> None:
        axes = self.wanted[name].axes
        raise Refusal(
            f"site {name!r} holds a tensor of shape {tuple(x.shape)}, not {axes!r}; "
            f"name its axes: model.site({name!r}, axes=...)"
        )

    def _edited(self, x: Tensor, edits: list[tuple[int, Edit]]) -> Tensor:
        for _, edit in edits:
            late = [s.name for s in edit.needs if s.name in self.unseen]
            if late:
                raise Refusal(
                    f"'{edit}' looks at {late[0]!r}, which comes after {edit.site.name!r} in the forward pass"
                )
        x, touched = compose([e for _, e in edits], x, self.arrived)
        for (i, _), count in zip(sorted(edits, key=lambda ie: not ie[1].replaces), touched, strict=True):
            self.touched[i] += count
        return x

    def refuse_unseen(self) -> None:
        """Raises SiteNeverFired for a site that was asked for and not met."""
        if self.unseen:
            missing = ", ".join(sorted(self.unseen))
            raise SiteNeverFired(
                f"the forward pass never came by {missing}; model.verify() tells which sites work here"
            )

    def refuse_untouched(self) -> None:
        """Raises SiteNeverFired for an edit that changed nothing."""
        for edit, count in zip(self.edits, self.touched, strict=True):
            if not count:
                raise SiteNeverFired(
                    f"'{edit}' changed no place of this input; check its positions against the lengths"
                )


# What modules of known shape return; others pass the shape on.
GIVES = {
    nn.Conv2d: "batch d y x", nn.MaxPool2d: "batch d y x", nn.AvgPool2d: "batch d y x", nn.BatchNorm2d: "batch d y x",
    nn.AdaptiveAvgPool2d: "batch d y x", nn.Linear: "batch d", nn.Flatten: "batch d",
}  # fmt: skip
