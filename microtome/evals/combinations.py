"""Are the weaker components of a token as dispensable as they look? Any combination of them may be left out.

The stronger half of the active components, by how much each writes, is said to matter; the weaker half and the
dictionary's error are said not to. They are left out all together, at random, and in the combination that an adversary
finds worst. Where components cancel one another, leaving out some does more harm than leaving out all.
The masks are those of Bushnaq et al. 2025 (arXiv 2506.20790), by which parts of weights are judged too.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.edit import Edit, written_site
from microtome.core.inputs import Tokens
from microtome.core.measure import LOGITS
from microtome.core.model import Model
from microtome.evals.interval import Score
from microtome.interventions.masks import Adversary, Importance, Masks, only_important, stochastic
from microtome.interventions.row_masked import RowMasked

TOKENS, ALL, RANDOM, WORST = range(4)  # what is summed over each window
STEPS, DRAWS = 20, 4
AFTER = {"pos": slice(1, None)}  # position 0 is left as it is


class Combinations:
    """Divergence (KL from the untouched network, nats) where what is said not to matter is left out, window by window.

    Position 0 is left as it is. The adversary's choice holds for all tokens of a window, so that it fits none alone.
    """

    def __init__(self, dictionary: Dictionary, generator: torch.Generator, *, steps: int = STEPS):
        self.dictionary, self.site = dictionary, written_site(dictionary)
        self.generator, self.adversary = generator, Adversary(steps)
        self.lengths = dictionary.directions().write.detach().flatten(1).norm(dim=1)

    def measuring(self, model: Model, tokens: Int[Tensor, "windows context"]) -> Iterator[Float[Tensor, "1 sums"]]:
        """The four sums of one window after another."""
        for ids in tokens.split(1):
            yield self._window(model, Tokens.of(ids))[None].cpu()

    def _window(self, model: Model, inputs: Tokens) -> Float[Tensor, "sums"]:
        with torch.no_grad():
            trace = model.run(inputs, read=[*self.dictionary.reads, LOGITS])
            was = log_probabilities(trace[LOGITS])
            codes = trace.codes(self.dictionary).dense()
        importance = {"": stronger_half(codes, self.lengths.to(codes.device))}

        def diverged(masks: Masks) -> Float[Tensor, ""]:
            now = model.run(inputs, read=[LOGITS], edit=[self._edit(masks)])[LOGITS]
            return (was.exp() * (was - log_probabilities(now))).sum()

        found = [torch.tensor(float(was.shape[1])), *self._ways(importance, diverged)]
        return torch.stack([x.double().cpu() for x in found])

    def _ways(self, importance: Importance, diverged: Callable[[Masks], Tensor]) -> Iterator[Tensor]:
        with torch.no_grad():
            yield diverged(only_important(importance))
            yield torch.stack([diverged(stochastic(importance, self.generator)) for _ in range(DRAWS)]).mean()
        yield torch.tensor(max(harm for _, harm in self.adversary.path(importance, diverged, self.generator)))

    def _edit(self, masks: Masks) -> Edit:
        mask, rest = masks.at("")
        assert rest is not None
        return RowMasked(self.site, self.dictionary, mask, rest).at(**AFTER)


def log_probabilities(logits: Tensor) -> Float[Tensor, "windows next vocab"]:
    """Of every next token but the first, whose position is not edited."""
    return logits[:, 1:-1].float().log_softmax(-1)


def stronger_half(
    codes: Float[Tensor, "... components"], lengths: Float[Tensor, "components"]
) -> Float[Tensor, "... components"]:
    """1 for the half (rounded up) of a token's active components that write most, else 0."""
    written = codes.abs() * lengths
    many = (codes != 0).sum(-1, keepdim=True)
    rank = written.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return (rank < (many + 1) // 2).to(codes.dtype)


def mean(which: int) -> Score:
    """Nats a token."""
    return lambda sums: sums[..., which] / sums[..., TOKENS]
