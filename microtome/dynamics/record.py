"""Curves over checkpoints as a record, which the browser scrubs through."""

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from microtome.dynamics.series import Curves
from microtome.store.records import Dynamics, Stretch


def record(
    curves: Curves,
    model: str,
    about: str = "",
    units: Mapping[str, str] | None = None,
    phases: Sequence[Stretch] = (),
    arguments: Mapping[str, object] | None = None,
    seconds: float = 0.0,
) -> Dynamics:
    """Everything that was measured, to six digits; what is no finite number is left open."""
    return Dynamics(
        model=model, about=about, steps=list(curves.steps), units=dict(units or {}), phases=list(phases),
        curves={name: [told(value) for value in values] for name, values in curves.values.items()},
        arguments=dict(arguments or {}), seconds=seconds, version=version("microtome"),
    )  # fmt: skip


def told(value: float) -> float | None:
    """The number to six digits; None where it is none."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
