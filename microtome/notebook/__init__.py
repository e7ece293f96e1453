"""In a notebook every noun shows itself. Registered from above: nothing below this package knows how it looks.

`import microtome` inside IPython calls `register`; where IPython came later, `%load_ext microtome.notebook` does. A
thing is described once, as a page of headings, sentences, tables and shaded tokens, and drawn twice: as HTML and as
plain text.
"""

import sys
import warnings
from typing import Any

from microtome.core.component import Component, Dictionary
from microtome.core.errors import Refusal
from microtome.notebook.cards import remember
from microtome.notebook.describe import describe, read_by
from microtome.notebook.page import Page
from microtome.store.catalog import Catalog

__all__ = ["describe", "load_ipython_extension", "register", "show"]

BY_NAME = (("microtome.models.hooked", "HookedModel"),)  # types whose modules need not be loaded to be registered
IN_PLACE = (object, list, tuple)  # described by `show`, but left to IPython otherwise


def show(thing: object, *, catalog: Catalog | None = None, model: object | None = None) -> None:
    """Display a thing in a notebook; print it as plain text elsewhere.

    A `catalog` given with a dictionary, or with one of its components, is remembered: from then on those components
    show what they respond to. With a `model`, tokens are read by its tokenizer. Raises Refusal where the catalogue is
    of another size, or the model has no tokenizer.
    """
    if catalog is not None:
        remember(dictionary_of(thing), catalog)
    page = describe(thing) if model is None else read_by(model, thing)
    if running_ipython() is None:
        print(page)
    else:
        from IPython.display import display

        display(page)


def dictionary_of(thing: object) -> Dictionary:
    match thing:
        case Component():
            return thing.dictionary
        case Dictionary():
            return thing
    raise Refusal(f"a catalogue says something of a dictionary or a component, not of a {type(thing).__name__}")


def running_ipython() -> object | None:
    """The IPython session that this code runs in, if it does."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def register() -> None:
    """Let every noun show itself in the IPython session at hand. Without one, nothing happens."""
    shell = running_ipython()
    if shell is not None:
        load_ipython_extension(shell)


def load_ipython_extension(shell: Any) -> None:
    """What `%load_ext microtome.notebook` calls."""
    warnings.filterwarnings(
        "ignore", message="IProgress not found"
    )  # tqdm's, of a widget package that is not needed here
    formatters = shell.display_formatter.formatters
    for kind in describe.registry.keys() - set(IN_PLACE):
        formatters["text/html"].for_type(kind, as_html)
        formatters["text/plain"].for_type(kind, as_plain)
    for module, name in BY_NAME:
        formatters["text/html"].for_type_by_name(module, name, as_html)
        formatters["text/plain"].for_type_by_name(module, name, as_plain)


def as_html(thing: object) -> str:
    return describe(thing)._repr_html_()


def as_plain(thing: object, printer: Any, cycle: bool) -> None:
    page: Page = describe(thing)
    printer.text(str(page))
