"""Many fits on one stream: each batch is made once and serves all of them.

The fits take turns. A step of one fills the machine by itself, so putting the same products of several into one gains
nothing but at toy sizes; `docs/training.md` has the figures.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

from microtome.core.errors import NotFinite, Refusal
from microtome.core.fit import Step, fit


class together:  # noqa: N801  (reads as a verb: `for steps in together(fits, batches)`)
    """Learn several things from the same batches: each turn is one step of each, by name.

    A fit whose loss is not finite is stopped there, its weights as they were before that step, and the others go on:
    `stopped` says which and why, and it is missing from what is yielded from then on. The fits' own batches are not
    looked at. `state_dict` and `load_state_dict` carry all of them: going on equals never having stopped, bit for bit.
    """

    def __init__(self, fits: Mapping[str, fit] | Sequence[fit], batches: Iterable[Sized]):
        """Fits given without names are numbered. Raises Refusal for none, and where two share weights or objective."""
        named = fits if isinstance(fits, Mapping) else {str(i): each for i, each in enumerate(fits)}
        self.fits, self.batches = dict(named), batches
        self.stopped: dict[str, str] = {}
        if not self.fits:
            raise Refusal("there is nothing to fit; give at least one fit")
        refuse_shared(self.fits)

    @property
    def going(self) -> dict[str, fit]:
        """Those that still learn."""
        return {name: each for name, each in self.fits.items() if name not in self.stopped}

    def __getitem__(self, name: str) -> fit:
        return self.fits[name]

    def __iter__(self) -> Iterator[dict[str, Step]]:
        for batch in self.batches:
            yield self.step(batch)

    def step(self, batch: Sized) -> dict[str, Step]:
        """One step of each. Raises NotFinite where none is left that learns."""
        steps: dict[str, Step] = {}
        for name, each in self.going.items():
            try:
                steps[name] = each.step(batch)
            except NotFinite as error:
                self.stopped[name] = str(error)
        if not self.going:
            raise NotFinite("every fit has stopped; " + "; ".join(f"{n}: {why}" for n, why in self.stopped.items()))
        return steps

    def state_dict(self) -> dict[str, Any]:
        """The state of every fit, and which have stopped and why."""
        return {
            "fits": {name: each.state_dict() for name, each in self.fits.items()}, "stopped": dict(self.stopped),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises Refusal for the state of other fits than these, before anything is changed."""
        if list(state["fits"]) != list(self.fits):
            was, here = ", ".join(state["fits"]), ", ".join(self.fits)
            raise Refusal(f"that state is of the fits {was}, and here are {here}; give the same")
        for name, each in self.fits.items():
            each.load_state_dict(state["fits"][name])
        self.stopped = dict(state["stopped"])


def refuse_shared(fits: Mapping[str, fit]) -> None:
    """Raises Refusal where two fits would move the same weights, or count in the same objective."""
    owner: dict[int, str] = {}
    for name, each in fits.items():
        held = {id(each.learned), *map(id, each.learned.parameters()), id(each.objective)}
        for other in {owner[key] for key in held & owner.keys()}:
            raise Refusal(f"the fits {other} and {name} share weights or an objective; make one for each")
        owner |= dict.fromkeys(held, name)
