"""What was at each site in one run: a plain mapping from site to tensor."""

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from microtome.core.codes import Codes
from microtome.core.errors import NoSuchSite
from microtome.core.inputs import Inputs
from microtome.core.site import Site


@runtime_checkable
class Encodes(Protocol):
    """What a trace needs of a dictionary."""

    def gather(self, held: "Trace") -> Tensor:
        """What it encodes, as it stands in a trace."""
        ...

    def encode(self, x: Tensor) -> Codes:
        """The codes of what was gathered."""
        ...


class Trace(Mapping[str, Tensor]):
    """What was at each site. `trace["resid_post.8"]` is the whole; `trace[site.at(pos=-1)]` each row's last token."""

    def __init__(
        self, inputs: Inputs, values: Mapping[str, Tensor] | None = None, sites: Mapping[str, Site] | None = None
    ):
        self.inputs = inputs
        self.values_by_name = dict(values or {})
        self.sites_by_name = dict(sites or {})
        self._codes: dict[Encodes, Codes] = {}

    @property
    def sites(self) -> list[Site]:
        """The sites that were read, in the order in which the forward pass met them."""
        return [self.sites_by_name.get(name, Site(name)) for name in self.values_by_name]

    def __getitem__(self, site: Site | str) -> Tensor:
        if isinstance(site, Site) and site.where and str(site) in self.values_by_name:
            return self.values_by_name[str(site)]  # a part of which the whole was never made
        name = site if isinstance(site, str) else site.name
        if name not in self.values_by_name:
            raise NoSuchSite(f"{name!r} was not read; this trace holds {', '.join(self.values_by_name) or 'nothing'}")
        whole = self.values_by_name[name]
        return whole if isinstance(site, str) or not site.where else site.take(whole, self.inputs)

    def __contains__(self, site: object) -> bool:
        return (site.name if isinstance(site, Site) else site) in self.values_by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    def rows(self, which: slice) -> "Trace":
        """The same sites for some rows of the batch."""
        return Trace(self.inputs.rows(which), {n: x[which] for n, x in self.values_by_name.items()}, self.sites_by_name)

    def codes(self, dictionary: Encodes) -> Codes:
        """How strongly each component of a dictionary was active in this run; worked out once."""
        if dictionary not in self._codes:
            self._codes[dictionary] = dictionary.encode(dictionary.gather(self))
        return self._codes[dictionary]
