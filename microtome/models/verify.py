"""Is each site what its name says? Proven on the model at hand, in a few forward passes over a few tokens.

Every site must be met exactly once, and what stands there must satisfy the family's equations (resid_post = resid_mid +
mlp_out, attn_out = W_O z + b, logits = W_U final_norm, ...) twice: as the model runs, and again while every site is
being pushed by noise, so that what is written at a site is known to reach whatever comes after. Errors are the worst
token's largest error over the scale of what is summed there; never a cosine. A site that fails is withdrawn.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from microtome.core.edit import function
from microtome.core.errors import Refusal
from microtome.core.gradients import gradients
from microtome.core.inputs import Arrays, Inputs, Tokens
from microtome.core.measure import Measure
from microtome.core.site import Site
from microtome.core.trace import Trace
from microtome.models.adapter import Equation
from microtome.models.attention import EAGER, kernels
from microtome.models.closeness import mixture, real, real_mask, scale_of, single_rows, unmasked, worst
from microtome.models.hooked import HookedModel
from microtome.models.verification import GRADIENT, PUSHED, Check, Verification

# A wrong table is off by a tenth and more; a right one, in float32, by 1e-6 (small models) to 2e-5 (deep ones).
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
GRADIENT_TOLERANCE = 2e-2  # of a finite difference in float32
PUSH = 0.1  # noise at every site, as a share of the scale there


@torch.no_grad()
def verify(model: HookedModel, inputs: Inputs | None = None) -> Verification:
    """Check every site of the model's table and withdraw those that fail.

    `inputs` are a few short rows, by default random tokens (or pixels) of two lengths. Raises Refusal where the model
    does not say what it takes, and none are given.
    """
    batch = example(model) if inputs is None else inputs
    model.withdrawn = dict(model.family.lacking)
    proof = Proof(model, batch)
    checks = tuple(proof.checks())
    withdrawn = {site: f"{why.identity} does not hold ({why.reason})" for site, why in proof.blamed(checks)}
    model.withdrawn |= withdrawn
    return Verification(model.name, model.family.name, checks, withdrawn, dict(model.family.lacking))


def example(model: HookedModel) -> Inputs:
    """Two short rows that the model takes: random tokens of unequal length, or random pixels."""
    config: Any = getattr(model.module, "config", None)
    generator = torch.Generator().manual_seed(0)
    vocabulary, size = getattr(config, "vocab_size", None), getattr(config, "image_size", None)
    if size is not None:
        return Arrays((torch.randn(2, config.num_channels, size, size, generator=generator).to(model.device),))
    if vocabulary is not None:
        ids = torch.randint(vocabulary, (8,), generator=generator).tolist()
        return Tokens.of([ids[:5], ids[5:]]).to(model.device)
    raise Refusal(f"{model.name} does not say what it takes; give some rows: model.verify(inputs)")


ATTENTION = ("v", "scores", "pattern")


class Proof:
    """The checks of one model on one batch."""

    def __init__(self, model: HookedModel, batch: Inputs) -> None:
        self.model, self.batch, self.family = model, batch, model.family
        self.sites = [s.site for s in model.family.sited.values()]
        self.dtype = next((p.dtype for p in model.module.parameters()), torch.float32)
        self.tolerance = TOLERANCES.get(self.dtype, 6e-2)

    def checks(self) -> Iterator[Check]:
        """Every check, in the order in which they are made; sites that are not met once are left out of the rest."""
        self.seen = self.witnessed()
        yield from self.fired()
        self.sites = [s for s in self.sites if len(self.seen[s.name]) == 1]
        if not self.sites:
            return
        yield from self.bitwise()
        trace = self.model.run(self.batch, read=self.sites)
        yield from self.equations(trace, trace, "")
        yield from self.attention(trace, trace, "")
        yield from self.pushed(trace)
        yield from self.rows_singly(trace)
        yield from self.gradient(trace)

    # ------------------------------------------------------------ met once

    def witnessed(self) -> dict[str, list[Tensor]]:
        """All that passes by each site."""
        seen: dict[str, list[Tensor]] = {s.name: [] for s in self.sites}

        def see(name: str) -> Callable[[Tensor], Tensor]:
            return lambda x: seen[name].append(x) or x

        with self.model.hooks({name: see(name) for name in seen}):
            self.batch.call(self.model.module)
        return seen

    def fired(self) -> Iterator[Check]:
        """Whether each site is met once, with the axes that it says."""
        for site in self.sites:
            met = self.seen[site.name]
            axes = len(site.axes.split())
            ok = len(met) == 1 and met[0].ndim == axes
            reason = (
                ""
                if ok
                else f"met {len(met)} times"
                if len(met) != 1
                else f"{tuple(met[0].shape)} is not {site.axes!r}"
            )
            yield Check(site.name, tuple(met[0].shape) if met else (), "met exactly once", None, ok, reason)

    # ------------------------------------------------------------ reading changes nothing

    def bitwise(self) -> Iterator[Check]:
        """The logits of a run that reads equal those of the plain module, under the kernel it has."""
        places = {s.name: self.family.sited[s.name].place for s in self.sites}
        own = [s for s in self.sites if getattr(places[s.name], "role", None) not in EAGER]
        eager = [s for s in self.sites if s not in own]
        yield self.same_output(own, "a run that reads = the plain module, bitwise")
        if eager:
            with kernels(self.model.module, lambda name: "eager"):
                yield self.same_output(eager, "a run that reads scores and patterns = the eager kernel, bitwise")

    def same_output(self, read: list[Site], identity: str) -> Check:
        """The output with hooks that only look at these sites, beside the plain module's."""
        plain = output(self.batch.call(self.model.module))
        seen: list[Tensor] = []
        with self.model.hooks({s.name: lambda x: x for s in read}):
            seen.append(output(self.batch.call(self.model.module)))
        error = worst(seen[0], plain, [plain])
        return Check(
            "logits",
            tuple(plain.shape),
            identity,
            error,
            torch.equal(seen[0], plain),
            off(error, torch.equal(seen[0], plain)),
        )

    # ------------------------------------------------------------ what stands there

    def equations(self, left: Trace, arrived: Trace, suffix: str) -> Iterator[Check]:
        """What the family's layout says must hold, in this run."""
        for e in self.family.equations:
            if all(name in left for name in (e.target, *e.sources)):
                found = self.right_side(e, left)
                scale = [found] if e.through else [left[s] for s in e.sources]
                yield self.compared(e.target, e.sources, f"{e}{suffix}", arrived[e.target], found, scale)

    def right_side(self, e: Equation, trace: Trace) -> Tensor:
        """The sum of an equation's sources, through its modules."""
        total = torch.stack([trace[s].flatten(2) if s.startswith("z.") else trace[s] for s in e.sources]).sum(0)
        total = total if e.at is None else total[:, e.at]
        for path in e.through:
            total = first(self.model.module.get_submodule(path)(total))
        return total if e.softcap is None else e.softcap * torch.tanh(total / e.softcap)

    def attention(self, left: Trace, arrived: Trace, suffix: str) -> Iterator[Check]:
        """The pattern is the scores' softmax, and mixes the values into z; each query head has a key-value head's."""
        for layer in (s.name.partition(".")[2] for s in self.sites if s.name.startswith("pattern.")):
            scores, pattern, v, z = (f"{name}.{layer}" for name in ("scores", "pattern", "v", "z"))
            if scores in left:
                found = left[scores].softmax(-1)
                identity = f"{pattern} = softmax({scores}){suffix}"
                yield self.compared(pattern, (scores,), identity, arrived[pattern], found, [found])
            if v in left and z in left:
                found, scale = mixture(left[pattern], left[v], left[z].shape[2])
                yield self.compared(z, (pattern, v), f"{z} = {pattern} {v}{suffix}", arrived[z], found, [scale])

    def compared(
        self, site: str, sources: tuple[str, ...], identity: str, given: Tensor, found: Tensor, scale: list[Tensor]
    ) -> Check:
        """A check of one identity: what was `given` at the site, what was `found` from its sources."""
        return self.within(site, given, identity, worst(given, found, scale), sources=sources)

    def within(
        self,
        site: str,
        x: Tensor,
        identity: str,
        error: float,
        tolerance: float | None = None,
        sources: tuple[str, ...] = (),
    ) -> Check:
        """A check that holds if the error is at most the tolerance, by default that of the precision."""
        ok = error <= (self.tolerance if tolerance is None else tolerance)
        return Check(site, tuple(x.shape), identity, error, ok, off(error, ok), sources)

    # ------------------------------------------------------------ what is written there matters

    def pushed(self, trace: Trace, only: str | None = None) -> Iterator[Check]:
        """The same equations while every site of them (or one) is pushed by noise of its own."""
        names = {n for e in self.family.equations for n in (e.target, *e.sources) if n in trace}
        sites = [s for s in self.sites if s.name in names or s.name.partition(".")[0] in ATTENTION]
        generator = torch.Generator().manual_seed(1)
        noise = {s.name: PUSH * unmasked(trace[s]).abs().mean() * randn_like(trace[s], generator) for s in sites}
        edits = [function(s, pusher(noise[s.name])) for s in sites if only in (None, s.name)]
        left = self.model.run(self.batch, read=sites, edit=edits)
        arrived = Trace(self.batch, {n: x - noise[n] if only in (None, n) else x for n, x in left.items()})
        yield from self.equations(left, arrived, PUSHED)
        yield from self.attention(left, arrived, PUSHED)

    # ------------------------------------------------------------ whose fault it is

    def blamed(self, checks: Sequence[Check]) -> Iterator[tuple[str, Check]]:
        """Sites that fail, each with the check that says so.

        Of an identity that does not hold: its target, and each source which no identity that holds vouches for. Of one
        that holds until it is pushed: the sources whose push alone breaks it.
        """
        holds = {c.identity for c in checks if c.ok}
        vouched = {name for c in checks if c.ok and c.sources for name in (c.site, *c.sources)}
        for check in (c for c in checks if not c.ok and c.site in self.family.sited):
            if check.identity.removesuffix(PUSHED) in holds:
                yield from ((name, check) for name in self.breaking(check) or (check.site,))
            elif not check.identity.endswith(PUSHED):
                yield from (
                    (name, check) for name in (check.site, *check.sources) if name == check.site or name not in vouched
                )

    def breaking(self, check: Check) -> list[str]:
        """The sources whose push alone breaks an identity."""
        trace = self.model.run(self.batch, read=self.sites)
        alone = ((name, self.pushed(trace, only=name)) for name in check.sources)
        return [name for name, checks in alone if any(c.identity == check.identity and not c.ok for c in checks)]

    # ------------------------------------------------------------ rows and gradients

    def rows_singly(self, trace: Trace) -> Iterator[Check]:
        """Each row's real tokens, run alone, give what they give in the batch."""
        singles = [self.model.run(row, read=self.sites) for row in single_rows(self.batch)]
        for site in self.sites:
            errors = [worst(real(trace, site, i), one[site][0], [scale_of(one, site)]) for i, one in enumerate(singles)]
            yield self.within(site.name, trace[site], "a batch = its rows singly", max(errors))

    def gradient(self, trace: Trace) -> Iterator[Check]:
        """Along one random direction at each layer's resid_pre. Half precision has too few digits for differences."""
        if self.dtype not in (torch.float32, torch.float64) or "logits" not in trace:
            return
        generator = torch.Generator().manual_seed(2)
        weights = randn_like(trace["logits"], generator)
        mask = real_mask(self.batch, trace["logits"])
        logits = self.family.sited["logits"].site
        measure = Measure(
            lambda t: (t[logits].double() * weights * mask).flatten(1).sum(1), (logits,), "logits, weighted"
        )
        for site in (s for s in self.sites if s.name.startswith("resid_pre.")):
            yield self.difference(site, trace, measure, generator)

    def difference(self, site: Site, trace: Trace, measure: Measure, generator: torch.Generator) -> Check:
        """The slope along one direction, from gradients and from two runs a small step apart."""
        way = randn_like(trace[site], generator)
        step = 1e-3 * trace[site].abs().mean() / way.abs().mean()
        slopes = gradients(self.model, self.batch, measure, [site])[site].double()
        up, down = (
            measure(
                self.model.run(self.batch, read=measure.reads, edit=[function(site, pusher(sign * step * way))])
            ).sum()
            for sign in (1, -1)
        )
        error = float(((up - down) / (2 * step) - (slopes * way).sum()).abs() / slopes.norm())
        return self.within(site.name, way, GRADIENT, error, GRADIENT_TOLERANCE)


# ---------------------------------------------------------------- small pieces


def off(error: float, ok: bool) -> str:
    """Why a check fails, in a sentence; empty where it holds."""
    return "" if ok else f"the worst token is off by {error:.1e} of its scale"


def pusher(by: Tensor) -> Callable[[Tensor], Tensor]:
    """An edit's function: add this."""
    return lambda x: x + by


def randn_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise of this shape, drawn where the generator is and taken to where `x` is."""
    return torch.randn(x.shape, generator=generator).to(x)


def first(out: Any) -> Tensor:
    """The tensor, or the first of a tuple."""
    return out[0] if isinstance(out, tuple) else out


def output(out: Any) -> Tensor:
    """The tensor that a forward pass ends in."""
    return next(iter(out.values())) if isinstance(out, dict) else first(out)
