"""Is each site what its name says? Proven on the model at hand, in a few forward passes over a few tokens.

Every site must be met exactly once, and what stands there must satisfy the family's equations (resid_post = resid_mid +
mlp_out, attn_out = W_O z + b, logits = W_U final_norm, ...) twice: as the model runs, and again while every site is
being pushed by noise, so that what is written at a site is known to reach whatever comes after. Errors are the worst
token's largest error over the scale of what is summed there; never a cosine. A site that fails is withdrawn.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.edit import function
from microtome.core.errors import Refusal
from microtome.core.gradients import gradients
from microtome.core.inputs import Arrays, Inputs, Tokens
from microtome.core.measure import Measure
from microtome.core.site import Site
from microtome.core.trace import Trace
from microtome.models.adapter import Equation
from microtome.models.attention import EAGER, attention_configs
from microtome.models.hooked import HookedModel

# A wrong table is off by a tenth and more; a right one, in float32, by 1e-6 (small models) to 2e-5 (deep ones).
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
GRADIENT_TOLERANCE = 2e-2  # of a finite difference in float32
PUSH = 0.1  # noise at every site, as a share of the scale there


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


GRADIENT = "gradient = finite difference"


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


PUSHED = ", pushed"
ATTENTION = ("v", "scores", "pattern")


class Proof:
    """The checks of one model on one batch."""

    def __init__(self, model: HookedModel, batch: Inputs) -> None:
        self.model, self.batch, self.family = model, batch, model.family
        self.sites = [s.site for s in model.family.sited.values()]
        self.dtype = next((p.dtype for p in model.module.parameters()), torch.float32)
        self.tolerance = TOLERANCES.get(self.dtype, 6e-2)

    def checks(self) -> Iterator[Check]:
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
            with kernel(self.model.module, "eager"):
                yield self.same_output(eager, "a run that reads scores and patterns = the eager kernel, bitwise")

    def same_output(self, read: list[Site], identity: str) -> Check:
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
        for e in self.family.equations:
            if all(name in left for name in (e.target, *e.sources)):
                found = self.right_side(e, left)
                scale = [found] if e.through else [left[s] for s in e.sources]
                yield self.compared(e.target, e.sources, f"{e}{suffix}", arrived[e.target], found, scale)

    def right_side(self, e: Equation, trace: Trace) -> Tensor:
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


def worst(given: Tensor, found: Tensor, scale: list[Tensor]) -> float:
    """The worst token's largest error, over the largest number among what is summed there. nan is infinitely wrong."""
    if not given.numel():
        return 0.0

    def largest(x: Tensor) -> Tensor:
        return unmasked(x).double().abs().reshape(-1, x.shape[-1]).amax(-1)

    error = largest(unmasked(given).double() - unmasked(found).double())
    size = torch.stack([largest(s) for s in scale]).amax(0)
    relative = torch.where(error == 0, error, error / size.clamp_min(torch.finfo(torch.float32).tiny))
    return float(relative.nan_to_num(nan=torch.inf).max())


def unmasked(x: Tensor) -> Tensor:
    """Zero where attention's mask has put the lowest number there is."""
    return x.masked_fill(x <= torch.finfo(x.dtype).min / 2, 0.0)


def scale_of(trace: Trace, site: Site) -> Tensor:
    """The scale of the one row of a site. A score may be a small sum of large products, so the row's largest counts."""
    x = trace[site][0]
    return unmasked(x).abs().amax().expand_as(x) if site.name.startswith("scores.") else x


def mixture(
    pattern: Float[Tensor, "batch head query key"], v: Float[Tensor, "batch pos kv_head d"], heads: int
) -> tuple[Float[Tensor, "batch query head d"], Float[Tensor, "batch query head d"]]:
    """The values as the pattern mixes them, each query head with its key-value head's; and the values' scale."""
    found = torch.einsum("bhqk,bkhd->bqhd", pattern, v.repeat_interleave(heads // v.shape[2], 2))
    return found, v.abs().amax((1, 2, 3), True).expand_as(found)


def off(error: float, ok: bool) -> str:
    return "" if ok else f"the worst token is off by {error:.1e} of its scale"


def pusher(by: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: x + by


def randn_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator).to(x)


def first(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def output(out: Any) -> Tensor:
    """The tensor that a forward pass ends in."""
    return next(iter(out.values())) if isinstance(out, dict) else first(out)


@contextmanager
def kernel(root: nn.Module, name: str) -> Iterator[None]:
    """Let the model's attention run on this kernel of its own."""
    before = [(config, config._attn_implementation) for config in attention_configs(root)]
    try:
        for config, _ in before:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, was in before:
            config._attn_implementation_internal = was


def single_rows(batch: Inputs) -> list[Inputs]:
    """Each row alone, without its padding."""
    rows = [batch.rows(slice(i, i + 1)) for i in range(len(batch))]
    return [Tokens.of(r.ids[r.mask][None]) if isinstance(r, Tokens) else r for r in rows]


def real(trace: Trace, site: Site, row: int) -> Float[Tensor, "..."]:
    """One row of a site without the places of its padding."""
    x, batch = trace[site][row], trace.inputs
    if not isinstance(batch, Tokens):
        return x
    for i, axis in enumerate(site.axes.split()[1:]):
        x = x.index_select(i, batch.mask[row].nonzero()[:, 0]) if axis in ("pos", "query", "key") else x
    return x


def real_mask(batch: Inputs, logits: Tensor) -> Tensor:
    return batch.mask[..., None] if isinstance(batch, Tokens) else torch.ones_like(logits)
