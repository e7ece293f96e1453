"""`microtome check`: is each site of a model what its name says? Measured in a few forward passes."""

from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from microtome.cli.figures import write_figures
from microtome.core.errors import Refusal
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.models.verification import GRADIENT, PUSHED, Check, Verification
from microtome.store.records import Checked, CheckedSite


def check(model: str, /, *, device: str = "cpu", dtype: str = "float32", json: Path | None = None) -> Checked:
    """Check every named site of a model: met exactly once, bound to its neighbours by the equations of its family.

    The error is the largest over all that was measured at a site, at the worst token, relative to the scale of what is
    summed there. Exits with 1 where a site fails.

    Parameters
    ----------
    model
        A folder in Hugging Face's format, a hub name, or `specimen` (ships with the package).
    device
        Where the model runs.
    dtype
        The precision it runs in: float32, float64, bfloat16 or float16.
    json
        Also write what was found to this file.
    """
    loaded = load(model, device=device, dtype=precision(dtype), verify=False)
    if not loaded.family.sited:
        raise Refusal(
            f"{model} is of no family in the table, so it has no named sites to check; its module paths work as sites"
        )
    checked = told(loaded, loaded.verify())
    write_figures(checked, json)
    show(checked)
    return checked


def precision(name: str) -> torch.dtype:
    known = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise Refusal(f"no dtype {name!r}; use one of {', '.join(known)}")
    return known[name]


def told(model: HookedModel, found: Verification) -> Checked:
    """One row for each site, out of the many identities that were measured."""
    sites = [row(site, found) for site in model.family.sited]
    return Checked(model=found.model, family=found.family, ok=found.ok, sites=sites, lacking=found.lacking)


def row(site: str, found: Verification) -> CheckedSite:
    here = [check for check in found.checks if check.site == site]
    error = max((c.error for c in here if c.error is not None and c.identity != GRADIENT), default=None)
    telling = min(here, key=lambda c: (c.ok, is_plain(c), c.identity.endswith(PUSHED), -(c.error or 0.0)))
    reason = found.withdrawn.get(site, telling.reason)
    return CheckedSite(
        site=site,
        shape=list(telling.shape),
        identity=telling.identity,
        error=error,
        ok=telling.ok and not reason,
        reason=reason,
    )


def is_plain(check: Check) -> bool:
    """Whether the identity would hold of any site, and so says nothing of what this one is."""
    return " = " not in check.identity or not check.identity.startswith(check.site)


# ---------------------------------------------------------------- on one screen


def show(checked: Checked) -> None:
    """One line for each kind of site, with the layer where its error is largest; sites that fail have their own."""
    console = Console()
    table = Table(
        title=f"{checked.model}: {checked.family}, {len(checked.sites)} sites", title_justify="left", box=None
    )
    for name in ("site", "layers", "shape", "for instance", "error", ""):
        table.add_column(name, justify="right" if name == "error" else "left")
    for kind, sites in kinds(checked.sites).items():
        worst = max(sites, key=lambda site: site.error or 0.0)
        table.add_row(
            kind,
            layers([s.site for s in sites]),
            " × ".join(map(str, worst.shape)),
            worst.identity,
            error(worst),
            verdict(worst),
        )
    console.print(table)
    for why, names in lacking(checked.lacking).items():
        console.print(f"no {names}: {why}", markup=False, highlight=False, soft_wrap=True)
    for site in (site for site in checked.sites if not site.ok):
        console.print(f"{site.site} is withdrawn: {site.reason}", markup=False, highlight=False, soft_wrap=True)
    if all(site.ok for site in checked.sites):
        console.print("every site holds what its name says", highlight=False)


def kinds(sites: list[CheckedSite]) -> dict[str, list[CheckedSite]]:
    """Sites that hold, gathered by kind; a site that fails stands alone under its own name."""
    found: dict[str, list[CheckedSite]] = {}
    for site in sites:
        found.setdefault(kind(site.site) if site.ok else site.site, []).append(site)
    return found


def kind(site: str) -> str:
    name, _, layer = site.rpartition(".")
    return name if layer.isdigit() else site


def layers(names: list[str]) -> str:
    """`0 to 3`, `0, 2`, or nothing for a site without a layer."""
    numbers = [int(layer) for layer in (name.rpartition(".")[2] for name in names) if layer.isdigit()]
    run = len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]} to {numbers[-1]}" if run else ", ".join(map(str, numbers))


def error(site: CheckedSite) -> str:
    return "" if site.error is None else f"{site.error:.0e}"


def verdict(site: CheckedSite) -> str:
    return "[green]ok[/]" if site.ok else "[red]withdrawn[/]"


def lacking(sites: dict[str, str]) -> dict[str, str]:
    """The names of what is missing, by the reason why."""
    reasons: dict[str, dict[str, None]] = {}
    for site, why in sites.items():
        reasons.setdefault(why, {})[kind(site)] = None
    return {why: ", ".join(names) for why, names in reasons.items()}
