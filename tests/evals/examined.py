"""A toy text with labels that are true by construction: what a token is, decides them."""

import numpy as np
import torch
from torch import Tensor

from microtome.core.site import Site
from microtome.data.windows import Text
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.sae import SAE
from microtome.evals.truth import Truth
from tests import toys
from tests.toys import WIDTH

RESID, EMBED = Site("resid_post.0"), Site("embed")
NAMES = ("is three", "is small", "is even")


def ids(windows: int = 24, seed: int = 0) -> Tensor:
    return torch.randint(toys.VOCAB, (windows, 9), generator=torch.Generator().manual_seed(seed))


def labelled(tokens: Tensor) -> np.ndarray:
    return torch.stack((tokens == 3, tokens < 4, tokens % 2 == 0), -1).numpy()


def text(windows: int = 24, documents: int = 6, seed: int = 0) -> Text:
    tokens = ids(windows, seed)
    document = np.arange(windows) * documents // windows
    return Text(tokens, document, [f"d{i}" for i in range(documents)], labelled(tokens))


def truth(given: Text) -> Truth:
    return Truth.of(given, NAMES, NAMES)


def sae(width: int = 24, k: int = 3) -> SAE:
    made = SAE(RESID, WIDTH, width, TopK(k), generator=torch.Generator().manual_seed(0))
    return made.requires_grad_(False)
