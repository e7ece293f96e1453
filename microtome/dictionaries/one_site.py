"""A dictionary that writes at several sites, seen as one that writes at one of them: so that edits apply to it."""

from jaxtyping import Float
from torch import Tensor

from microtome.core.codes import Codes
from microtome.core.component import Dictionary, Directions
from microtome.core.errors import Refusal
from microtome.core.site import Site


class OneSite(Dictionary):
    """The same components, and what they write at one site alone.

    To ablate a crosscoder's latent everywhere, edit once for each site: `[ablate(OneSite(c, s)[7]) for s in c.writes]`.
    """

    def __init__(self, inner: Dictionary, site: Site):
        """Raises Refusal where the dictionary does not write at that site."""
        if site not in inner.writes:
            raise Refusal(
                f"{type(inner).__name__} does not write at {site}; it writes at {', '.join(map(str, inner.writes))}"
            )
        super().__init__()
        self.inner, self.place = inner, inner.writes.index(site)
        self.reads, self.writes = inner.reads, (site,)

    def encode(self, x: Float[Tensor, "... d_in"]) -> Codes:
        return self.inner.encode(x)

    def decode(self, codes: Codes) -> Float[Tensor, "... d_out"]:
        made = self.inner.decode(codes)
        return made[self.place] if len(self.inner.writes) > 1 else made

    def bypass(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "..."]:
        past = self.inner.bypass(x)
        return past[self.place] if past.ndim and len(self.inner.writes) > 1 else past

    def directions(self) -> Directions:
        read, write = self.inner.directions()
        return Directions(read, write[self.place])
