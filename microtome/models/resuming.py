"""A forward pass that begins in the middle: blocks that would only repeat a known run stand aside.

Each block up to a given one returns the stream that it is known to return; the blocks after it run as they always do.
What nobody reads is not made either: where one position of the logits is asked for, the unembedding sees no other.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from microtome.core.edit import Edit
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs
from microtome.core.prefix import before, last_block
from microtome.core.site import Site
from microtome.core.trace import Trace
from microtome.models.adapter import OutOf
from microtome.models.hooked import HookedModel, Visitor


def resume(
    model: HookedModel,
    inputs: Inputs,
    layer: int,
    stream: Tensor | None,
    *,
    read: list[Site],
    edit: Sequence[Edit],
    leaves: Iterable[Site] = (),
    call: Callable[[nn.Module], Any] | None = None,
) -> Trace:
    """See `core.model.Resumable.resume`. `call` runs the module on the inputs, where it is not to be run as usual."""
    refuse_earlier(model, layer, [*read, *(s for e in edit for s in (e.site, *e.needs))])
    narrow = narrowed_logits(model, read, edit)
    visitor = Visitor(model, [s.whole for s in read], edit, leaves)
    with model.lock, ExitStack() as stack:
        if stream is not None and layer >= 0:
            stack.enter_context(standing_aside(model, inputs, layer, stream))
        if narrow is not None:
            stack.callback(narrow_to(model, inputs, narrow))
        visitor.forward(inputs, call or inputs.call)
    visitor.refuse_unseen()
    visitor.refuse_untouched()
    if narrow is not None:
        visitor.left.values_by_name[str(narrow)] = visitor.left.values_by_name.pop(narrow.name)[:, 0]
        visitor.left.sites_by_name[str(narrow)] = narrow
    return visitor.left


def refuse_earlier(model: HookedModel, layer: int, sites: list[Site]) -> None:
    """Raises Refusal for a site that stands before what the run resumes from."""
    last = last_block(model)
    for site in sites:
        if before(site, last) < layer:
            raise Refusal(f"{site} comes before what block {layer} returns, from where the run would resume")


# ---------------------------------------------------------------- blocks that stand aside


@contextmanager
def standing_aside(model: HookedModel, inputs: Inputs, layer: int, stream: Tensor) -> Iterator[None]:
    """For the length of the block, the model's blocks up to `layer` return `stream` and do nothing."""
    blocks = [cast(OutOf, model.locate(f"resid_post.{i}").place).path for i in range(layer + 1)]
    forms = forms_of(model, inputs, blocks)
    modules = [model.module.get_submodule(path) for path in blocks]
    before = [module.__dict__.get("forward") for module in modules]
    try:
        for module, path in zip(modules, blocks, strict=True):
            module.forward = partial(given, forms[path](stream))
        yield
    finally:
        for module, was in zip(modules, before, strict=True):
            del module.__dict__["forward"]
            if was is not None:
                module.forward = was


def given(out: Any, *_: Any, **__: Any) -> Any:
    """The output of a block in whose place another is put."""
    return out


Form = Callable[[Tensor], Any]


def forms_of(model: HookedModel, inputs: Inputs, blocks: list[str]) -> dict[str, Form]:
    """How each block returns its stream: bare, or first in a tuple. Seen once, in a pass over one row."""
    if not set(blocks) <= set(model.forms):
        hooks = [model.module.get_submodule(b).register_forward_hook(partial(note, model.forms, b)) for b in blocks]
        try:
            one = inputs.rows(slice(0, 1))
            one.call(model.module)
        finally:
            for hook in hooks:
                hook.remove()
    return model.forms


def note(forms: dict[str, Form], path: str, module: nn.Module, args: tuple, out: Any) -> None:
    """Notes whether a block returns the stream alone or in a tuple."""
    forms[path] = partial(in_tuple, len(out)) if isinstance(out, tuple) else bare


def bare(stream: Tensor) -> Tensor:
    """The output of a block that returns the stream alone."""
    return stream


def in_tuple(size: int, stream: Tensor) -> tuple:
    """The output of a block that returns the stream first of several."""
    return (stream, *[None] * (size - 1))


# ---------------------------------------------------------------- logits where they are read


def narrowed_logits(model: HookedModel, read: list[Site], edit: Sequence[Edit]) -> Site | None:
    """The one position at which logits are read, where that is all that is wanted of them."""
    asked = {str(s): s for s in read if s.name == "logits"}
    touched = any(s.name == "logits" for e in edit for s in (e.site, *e.needs))
    if len(asked) != 1 or touched or unembedding(model) is None:
        return None
    site = next(iter(asked.values()))
    alone = len(site.where) == 1 and site.where[0][0] == "pos" and isinstance(site.where[0][1], int)
    return site if alone else None


def unembedding(model: HookedModel) -> str | None:
    """The module that makes logits of each position's vector."""
    known = [e for e in model.family.equations if e.target == "logits" and e.through and e.at is None]
    return known[0].through[0] if known else None


def narrow_to(model: HookedModel, inputs: Inputs, site: Site) -> Callable[[], None]:
    """Unembed the one position that is asked for, until what comes back is called."""
    module = model.module.get_submodule(cast(str, unembedding(model)))
    return module.register_forward_pre_hook(partial(one_position, inputs, cast(int, site.where[0][1]))).remove


def one_position(inputs: Inputs, pos: int, module: nn.Module, args: tuple) -> tuple:
    """What the unembedding is given, at one position of each row."""
    x = args[0]
    places = inputs.places(pos, x.shape[1])
    return (x[places.rows, places.columns][:, None], *args[1:])
