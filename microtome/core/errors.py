"""What a user can do wrong, each with a sentence that says what was given, what is allowed and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class Refusal(ValueError):
    """Something the user can mend. The message is one sentence; the command line prints it and exits with 2."""


class Absent(Refusal):
    """What was asked for needs something named that is not here. The command line skips it, and exits with 4."""


class NoSuchSite(Refusal, LookupError):
    """A site that this model does not have."""

    @classmethod
    def named(cls, name: str, known: Iterable[str]) -> "NoSuchSite":
        """The refusal of a site's name, with those of the known ones that are spelt alike."""
        near = get_close_matches(name, known, n=3)
        remedy = f"did you mean {' or '.join(map(repr, near))}?" if near else "model.sites('*') lists them"
        return cls(f"no site {name!r}; {remedy}")


class SiteWithdrawn(NoSuchSite):
    """A site whose meaning could not be proven on this model."""


class SiteNeverFired(Refusal):
    """A site was asked for, or an edit made there, and the forward pass never came by."""


class Conflict(Refusal):
    """Two replacements at one place, where only one can hold."""


class NoSuchPosition(Refusal, LookupError):
    """A position outside a row's real tokens."""


class NoSuchPlace(Refusal, LookupError):
    """A row, head, channel or other place that an axis does not have."""


class NoSuchComponent(Refusal, IndexError):
    """A component outside a dictionary. An IndexError, so that going through a dictionary ends where it ends."""


class NotFinite(Refusal):
    """Values that are not numbers, or infinite, where arithmetic would spread them silently."""
