"""How a network came to be, for its page: curves over checkpoints, profiles drawn at one of them, and phases."""

from pydantic import BaseModel

from microtome.browser.cards import finite, run_card
from microtome.browser.replies import RunCard
from microtome.browser.runs import FoundRun
from microtome.store.records import Dynamics


class StepCurve(BaseModel):
    """A number at each step; None where it was not measured."""

    name: str
    unit: str
    values: list[float | None]


class Profile(BaseModel):
    """Several numbers at each step, one for each member: row i is step i."""

    name: str
    unit: str
    members: list[str]
    values: list[list[float | None]]


class Phase(BaseModel):
    """From one step to another, the last included."""

    name: str
    first: int
    last: int


class DynamicsPage(BaseModel):
    """Curves and profiles over the same checkpoints."""

    card: RunCard
    model: str
    about: str
    steps: list[int]
    curves: list[StepCurve]
    profiles: list[Profile]
    phases: list[Phase]


def dynamics_page(run: FoundRun) -> DynamicsPage:
    """The curves of a run. Raises NotYet where there are none, or none that can be read."""
    held = run.record(Dynamics)
    values = {name: [finite(v) for v in column] for name, column in held.curves.items()}
    profiles: dict[str, dict[str, list[float | None]]] = {}
    for name, column in values.items():
        profile, slash, member = name.partition("/")
        if slash:
            profiles.setdefault(profile, {})[member] = column
    return DynamicsPage(
        card=run_card(run), model=held.model, about=held.about, steps=held.steps,
        curves=[
            StepCurve(name=n, unit=held.units.get(n, ""), values=v) for n, v in values.items() if "/" not in n
        ],
        profiles=[
            Profile(
                name=n, unit=held.units.get(n, ""), members=list(one),
                values=[list(row) for row in zip(*one.values(), strict=True)],
            )
            for n, one in profiles.items()
        ],
        phases=[Phase(**stretch.model_dump()) for stretch in held.phases],
    )  # fmt: skip
