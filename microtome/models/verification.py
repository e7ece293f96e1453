"""What was checked on a model: one identity at one site after the other, and which sites failed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

GRADIENT = "gradient = finite difference"
PUSHED = ", pushed"


@dataclass(frozen=True)
class Check:
    """One identity at one site. `error` is relative; None where what counts is whether, not how far."""

    site: str
    shape: tuple[int, ...]
    identity: str
    error: float | None
    ok: bool
    reason: str = ""
    sources: tuple[str, ...] = ()

    def __str__(self) -> str:
        error = "" if self.error is None else f"{self.error:.1e}"
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.site:16} {self.identity:60} {error:8} {self.reason}".rstrip()


@dataclass(frozen=True)
class Verification:
    """What was checked, in the order of the network; `withdrawn` sites fail an identity, and asking for one raises."""

    model: str
    family: str
    checks: tuple[Check, ...]
    withdrawn: dict[str, str]
    lacking: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether all that was checked holds."""
        return all(check.ok for check in self.checks)

    @property
    def worst(self) -> float:
        """The largest relative error of the identities that hold to rounding (the gradient's is not among them)."""
        return max((c.error for c in self.checks if c.error is not None and c.identity != GRADIENT), default=0.0)

    def rows(self) -> list[dict[str, Any]]:
        """Plain values, one row for each check: for tables and JSON."""
        return [asdict(c) | {"shape": list(c.shape), "sources": list(c.sources)} for c in self.checks]

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __len__(self) -> int:
        return len(self.checks)

    def __str__(self) -> str:
        return "\n".join(map(str, self.checks))
