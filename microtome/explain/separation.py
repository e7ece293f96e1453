"""Components that tell two sets of inputs apart: active on the last token of the one, silent on that of the other.

    separation of a component = share of known names on which it is active - share of unknown ones
    over several kinds of names, its score is the least of them

Ferrando et al. 2024, Do I Know This Entity? (arXiv 2411.14257). Components that are active on more than a few percent
of ordinary text say something else, and are left out.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.inputs import Tokens
from microtome.core.model import Model

GENERAL = 0.02  # of ordinary text, at most: the paper's filter

Activity = Float[Tensor, "prompts components"]


@torch.no_grad()
def last_activity(model: Model, dictionary: Dictionary, prompts: Tokens, *, batch: int = 128) -> Activity:
    """Every component's activity at the last token of each prompt."""
    found = []
    for start in range(0, len(prompts), batch):
        rows = prompts.rows(slice(start, start + batch))
        trace = model.run(rows, read=list(dictionary.reads))
        place = rows.places(-1, rows.ids.shape[1])
        found.append(trace.codes(dictionary).dense()[place.rows, place.columns].cpu())
    return torch.cat(found)


def separation(
    known: Float[Tensor, "known components"], unknown: Float[Tensor, "unknown components"]
) -> Float[Tensor, "components"]:
    """The share of the first set on which each component is active, less that of the second: from -1 to 1."""
    return (known != 0).float().mean(0) - (unknown != 0).float().mean(0)


def least(by_kind: Mapping[str, Float[Tensor, "components"]]) -> Float[Tensor, "components"]:
    """The least separation over kinds: high only where a component separates all of them the same way."""
    return torch.stack(list(by_kind.values())).amin(0)


def ranked(scores: Float[Tensor, "components"], rare: Bool[Tensor, "components"]) -> list[int]:
    """Components by score, the highest first; only those that are rare in ordinary text (`GENERAL` of it, or less)."""
    order = torch.where(rare, scores, -torch.inf).argsort(descending=True, stable=True)
    return order[: int(rare.sum())].tolist()
