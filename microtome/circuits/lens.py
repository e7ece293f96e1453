"""What the network would say if it stopped here: the stream of an early layer, read as the last layer's is.

Logit lens: nostalgebraist 2020. Tuned lens: Belrose et al. 2023 (arXiv 2303.08112), x + A x + b before the reading,
fitted for each layer to the network's own next-token distribution.
Reading is done by the network itself, with the early stream in place of what its last block left; so norms, biases and
caps are its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from microtome.core.edit import fill
from microtome.core.errors import NoSuchSite, Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.model import Model
from microtome.core.site import Site
from microtome.store.artefact import load_module, save_module

Stream = Float[Tensor, "batch pos d"]
Logits = Float[Tensor, "batch pos vocab"]


class TunedLens(nn.Module):
    """x + A_l x + b_l for each site l; before it is fitted A and b are nothing, and the lens is the logit lens."""

    def __init__(self, sites: Sequence[Site], d: int) -> None:
        super().__init__()
        if not sites:
            raise Refusal("a tuned lens needs at least one site; give model.sites('resid_post.*')")
        self.sites, self.d = tuple(sites), d
        self.weight = nn.Parameter(torch.zeros(len(sites), d, d))
        self.bias = nn.Parameter(torch.zeros(len(sites), d))

    def forward(self, x: Float[Tensor, "... d"], site: Site) -> Float[Tensor, "... d"]:
        """What the site's stream becomes. Raises NoSuchSite for one that the lens was not made for."""
        i = self._index(site)
        return x + x @ self.weight[i].T + self.bias[i]

    def _index(self, site: Site) -> int:
        names = [s.name for s in self.sites]
        if site.name not in names:
            raise NoSuchSite(f"this tuned lens has no {site.name!r}; it was made for {', '.join(names)}")
        return names.index(site.name)

    def save(self, folder: Path) -> None:
        """Write the lens to a folder, with the sites that it reads."""
        about = {"class": "TunedLens", "d": self.d, "sites": [[s.name, s.axes] for s in self.sites]}
        save_module(self, folder, about)

    @classmethod
    def load(cls, folder: Path) -> "TunedLens":
        """Raises Refusal for a folder that holds no tuned lens."""

        def build(about: dict[str, Any]) -> TunedLens:
            if about.get("class") != "TunedLens":
                raise Refusal(f"{folder} holds a {about.get('class')}, not a TunedLens")
            return cls([Site(name, axes) for name, axes in about["sites"]], about["d"])

        return load_module(folder, build)


class Seen(NamedTuple):
    """What the lens shows at one site."""

    site: Site
    logits: Logits


def lens(
    model: Model, inputs: Inputs, sites: Sequence[Site] | None = None, tuned: TunedLens | None = None
) -> Iterator[Seen]:
    """The logits at each site of the stream, one site after another: a grid of them would fill memory.

    By default at the first `resid_pre` and every `resid_post`, whose last is the network itself. With `tuned`, each
    stream is translated first, but for the last.
    """
    chosen = lens_sites(model) if sites is None else list(sites)
    end = last_stream(model)
    streams = model.run(inputs, read=chosen)
    for site in chosen:
        x = streams[site.whole]
        yield Seen(site, read_out(model, inputs, x if tuned is None or site == end else tuned(x, site)))


def read_out(model: Model, inputs: Inputs, x: Stream) -> Logits:
    """What the network says of this stream, put in place of what its last block left. Gradients flow back to `x`."""
    logits = model.site("logits")
    return model.run(inputs, read=[logits], edit=[fill(last_stream(model), x)])[logits]


def last_stream(model: Model) -> Site:
    """The stream after the last block."""
    return model.sites("resid_post.*")[-1]


def lens_sites(model: Model) -> list[Site]:
    """The stream before the first block and after each."""
    return [model.site("resid_pre.0"), *model.sites("resid_post.*")]


# ---------------------------------------------------------------- the grid


@dataclass(frozen=True, eq=False)
class LensGrid:
    """Site by place: how the lens ranks the target (0: it is on top), with what probability, and what it says first.

    `divergence` is KL(network || lens) in nats. Places of padding, and a row's last where targets are the tokens that
    follow, hold a rank of -1 and nan.
    """

    sites: tuple[Site, ...]
    targets: Int[Tensor, "batch pos"]
    rank: Int[Tensor, "sites batch pos"]
    probability: Float[Tensor, "sites batch pos"]
    top: Int[Tensor, "sites batch pos"]
    divergence: Float[Tensor, "sites batch pos"]


@torch.no_grad()
def lens_grid(
    model: Model,
    tokens: Tokens,
    targets: Int[Tensor, "batch pos"] | None = None,
    *,
    sites: Sequence[Site] | None = None,
    tuned: TunedLens | None = None,
) -> LensGrid:
    """The lens at every site and place. `targets` are by default the tokens that follow; -1 where there is none."""
    wanted = following(tokens) if targets is None else targets
    real = tokens.mask & (wanted >= 0)
    final = (
        read_out(model, tokens, model.run(tokens, read=[last_stream(model)])[last_stream(model)])
        .float()
        .log_softmax(-1)
    )
    found: list[tuple[Tensor, ...]] = []
    for seen in lens(model, tokens, sites, tuned):
        said = seen.logits.float().log_softmax(-1)
        target = said.gather(-1, wanted.clamp(min=0)[..., None])
        rank = (said > target).sum(-1).masked_fill(~real, -1)
        divergence = (final.exp() * (final - said)).sum(-1)
        outside = torch.where(tokens.mask, divergence, torch.nan)
        found.append((rank, torch.where(real, target[..., 0].exp(), torch.nan), said.argmax(-1), outside))
    rank, probability, top, divergence = (torch.stack(each) for each in zip(*found, strict=True))
    chosen = lens_sites(model) if sites is None else sites
    return LensGrid(tuple(chosen), wanted, rank, probability, top, divergence)


def following(tokens: Tokens) -> Int[Tensor, "batch pos"]:
    """The next real token of each place; -1 where none follows."""
    after = F.pad(tokens.ids[:, 1:], (0, 1), value=-1)
    real = F.pad(tokens.mask[:, 1:], (0, 1)) & tokens.mask
    return after.masked_fill(~real, -1)


# ---------------------------------------------------------------- fitting


class LensLoss:
    """KL(network || tuned lens) in nats, the mean over real places and the sites of the lens; for `fit`."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(self, learned: TunedLens, batch: Tokens) -> Mapping[str, Tensor]:
        logits = self.model.site("logits")
        with torch.no_grad():  # the logits come last, so that they are named last
            clean = self.model.run(batch, read=[*learned.sites, logits])
            target = clean[logits].float().log_softmax(-1)[batch.mask]
        losses = [self._divergence(learned, batch, site, clean[site], target) for site in learned.sites]
        return {"divergence": torch.stack(losses).mean()}

    def _divergence(self, learned: TunedLens, batch: Tokens, site: Site, x: Tensor, target: Tensor) -> Tensor:
        said = read_out(self.model, batch, learned(x, site)).float().log_softmax(-1)[batch.mask]
        return F.kl_div(said, target, log_target=True, reduction="batchmean")
