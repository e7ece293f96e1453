"""What was at some sites, one row for each token: a trace without the text it came from. Dictionaries learn from it."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import NoSuchSite, Refusal
from microtome.core.site import Site


class Rows:
    """Rows of several sites, aligned: row i of every site is the same token. Its length is the number of rows."""

    def __init__(self, values: Mapping[str, Float[Tensor, "rows _"]]):
        """Raises Refusal where the sites have different numbers of rows, or where there is none."""
        self.values = dict(values)
        if len({len(x) for x in self.values.values()}) != 1:
            sizes = ", ".join(f"{name}: {len(x)}" for name, x in self.values.items())
            raise Refusal(f"rows of several sites must be as many at each; given {sizes or 'no site'}")

    def __getitem__(self, site: Site | str) -> Float[Tensor, "rows _"]:
        name = site if isinstance(site, str) else site.name
        if name not in self.values:
            raise NoSuchSite(f"{name!r} is not among these rows, which hold {', '.join(self.values)}")
        return self.values[name]

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def to(self, device: torch.device | str) -> "Rows":
        """The same rows on a device."""
        return Rows({name: x.to(device) for name, x in self.values.items()})
