"""Dictionaries that must also work when part of them is taken away: a prefix of the latents, or fewer active ones."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.codes import TopCodes
from microtome.core.errors import Refusal
from microtome.dictionaries.objectives import Attempt, Objective


class Matryoshka(Objective):
    """The mean, over prefixes of the latents, of the variance that each prefix alone leaves unexplained.

    Bussmann et al. 2025 (arXiv 2503.17547). `widths` are the prefixes' sizes; the last is usually the whole. Early
    latents learn what is general, for they must do without the later ones; that is why features are absorbed less.
    """

    def __init__(self, widths: Sequence[int]):
        """Raises Refusal for widths that do not grow."""
        super().__init__()
        if not widths or list(widths) != sorted(set(widths)) or widths[0] < 1:
            raise Refusal(f"widths are {list(widths)}; prefixes must be positive and grow")
        self.widths = list(widths)

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        missed = [error.pow(2).sum() / attempt.variance for error in self.errors(attempt)]
        return {"unexplained": torch.stack(missed).mean()}

    def errors(self, attempt: Attempt) -> Iterator[Float[Tensor, "*site rows d"]]:
        """What each prefix leaves, each adding its own latents to the one before."""
        coder, codes = attempt.coder, attempt.codes
        if self.widths[-1] > codes.width:
            raise Refusal(f"the prefix of {self.widths[-1]} is more than the {codes.width} latents there are")
        left = attempt.target - attempt.past - coder.decode(codes.scaled(attempt.x.new_zeros(codes.width)))
        for start, stop in zip([0, *self.widths], self.widths, strict=False):
            which = torch.arange(start, stop, device=left.device)
            left = left - coder.writing_of(which, codes.part(start, stop))
            yield left


class FewerActive(Objective):
    """The mean variance left unexplained when only the j strongest codes are kept, for several j.

    Hierarchical TopK (Balagansky et al. 2025, arXiv 2505.24473): one dictionary for every sparsity up to its own.
    """

    def __init__(self, keep: Sequence[int]):
        super().__init__()
        if not keep or min(keep) < 1:
            raise Refusal(f"keep is {list(keep)}; name how many active codes are kept, each at least 1")
        self.keep = list(keep)

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        missed = []
        for j in self.keep:
            kept = attempt.coder.decode(attempt.codes.top(j))
            missed.append((attempt.target - attempt.past - kept).pow(2).sum() / attempt.variance)
        return {"unexplained": torch.stack(missed).mean()}


class MultiTopK(Objective):
    """The variance left unexplained with `times` as many codes active.  Gao et al. 2024, appendix A.6: weight 1/8.

    Without it a TopK dictionary is of little use at any k but its own.
    """

    def __init__(self, times: int = 4, weight: float = 1 / 8):
        super().__init__()
        self.times, self.weight = times, weight

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        if len(attempt.readings) != 1 or not isinstance(attempt.selected, TopCodes):
            raise Refusal("MultiTopK is for dictionaries with one TopK activation")
        pre, codes = attempt.readings[0].pre, attempt.selected
        k = min(self.times * codes.values.shape[-1], codes.width)
        values, indices = pre.largest(k)
        lead = (*pre.lead, k)
        more = TopCodes(torch.relu(values).view(lead), indices.view(lead), codes.width)
        again = attempt.coder.decode(attempt.coder.resized(more, attempt.x))
        return {"multi": self.weight * (attempt.target - attempt.past - again).pow(2).sum() / attempt.variance}
