"""Microtome opens neural networks: find their parts, say what each means, and prove by intervention what each does.

Five nouns (Site, Trace, Component and Dictionary, Edit, Measure) and four verbs (run and generate look, effects
touches, gradients feels, fit learns).
"""

import sys
import typing

from microtome.core.codes import Codes, DenseCodes, RaggedCodes, TopCodes
from microtome.core.component import Component, Dictionary
from microtome.core.edit import (
    Edit,
    ablate,
    add,
    clamp,
    fill,
    function,
    masked,
    patch,
    project_out,
    scale,
    splice,
    zero,
)
from microtome.core.effects import Effects, effects
from microtome.core.errors import Refusal
from microtome.core.evaluated import evaluated
from microtome.core.fit import fit
from microtome.core.gradients import gradients
from microtome.core.inputs import Arrays, Tokens
from microtome.core.measure import Measure, activity, cross_entropy, kl, log_probability, logit_diff
from microtome.core.rows import Rows
from microtome.core.site import Site
from microtome.core.together import together
from microtome.core.trace import Trace

if typing.TYPE_CHECKING:
    from microtome.cli.browse import browse
    from microtome.cli.check import check
    from microtome.cli.convert import convert
    from microtome.cli.dissect import dissect
    from microtome.cli.plan import plan
    from microtome.cli.study import study
    from microtome.data.corpus import corpus
    from microtome.dictionaries.files import save_dictionary
    from microtome.dictionaries.formats.registry import load_any
    from microtome.explain.catalog import catalog
    from microtome.models.load import load
    from microtome.notebook import show
    from microtome.store.harvest import harvest
    from microtome.store.resuming import resumable
    from microtome.store.stream import stream

LATER = {  # loaded when first asked for: they bring transformers, FastAPI and the rest with them
    "browse": "microtome.cli.browse",
    "catalog": "microtome.explain.catalog",
    "check": "microtome.cli.check",
    "convert": "microtome.cli.convert",
    "corpus": "microtome.data.corpus",
    "dissect": "microtome.cli.dissect",
    "harvest": "microtome.store.harvest",
    "load": "microtome.models.load",
    "load_any": "microtome.dictionaries.formats.registry",
    "plan": "microtome.cli.plan",
    "resumable": "microtome.store.resuming",
    "save_dictionary": "microtome.dictionaries.files",
    "show": "microtome.notebook",
    "stream": "microtome.store.stream",
    "study": "microtome.cli.study",
}

__all__ = [
    "Arrays",
    "Codes",
    "Component",
    "DenseCodes",
    "Dictionary",
    "Edit",
    "Effects",
    "Measure",
    "RaggedCodes",
    "Refusal",
    "Rows",
    "Site",
    "Tokens",
    "TopCodes",
    "Trace",
    "ablate",
    "activity",
    "add",
    "browse",
    "catalog",
    "check",
    "clamp",
    "convert",
    "corpus",
    "cross_entropy",
    "dissect",
    "effects",
    "evaluated",
    "fill",
    "fit",
    "function",
    "gradients",
    "harvest",
    "kl",
    "load",
    "load_any",
    "log_probability",
    "logit_diff",
    "masked",
    "patch",
    "plan",
    "project_out",
    "resumable",
    "save_dictionary",
    "scale",
    "show",
    "splice",
    "stream",
    "study",
    "together",
    "zero",
]


def __getattr__(name: str) -> object:
    if name not in LATER:
        raise AttributeError(f"module 'microtome' has no {name!r}")
    from importlib import import_module

    return getattr(import_module(LATER[name]), name)


if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:  # there every noun shows itself
    from microtome.notebook import register

    register()
    del register
