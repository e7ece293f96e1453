"""Papers as recipes: each a few lines over the grid of units, activation, objective and wiring.

    sae, objective = recipes.topk(site, sample, width=4096, k=32)
    for step in fit(sae, batches, objective, lr=3e-4): ...

`sample` are some rows of the site, from which units and the first bias are taken; recipes over several sites take
`Rows`. The loss is the share of variance left unexplained, so weights of penalties do not depend on the size of
activations; `sparsity` weighs the penalty where a paper has one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.model import Model
from microtome.core.rows import Rows
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import AbsTopK, Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from microtome.dictionaries.constraints import Constraint, Free, UnitRows
from microtome.dictionaries.cross_layer import CrossLayerTranscoder
from microtome.dictionaries.crosscoder import Crosscoder
from microtome.dictionaries.end_to_end import SplicedKL
from microtome.dictionaries.matching_pursuit import MatchingPursuit
from microtome.dictionaries.nested import FewerActive, Matryoshka, MultiTopK
from microtome.dictionaries.normalisation import UnitMeanSquare
from microtome.dictionaries.objectives import AuxK, Objective, Reconstruction
from microtome.dictionaries.orthogonality import Orthogonality
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.sparsity import (
    L0,
    Annealed,
    Frequency,
    GateAlone,
    PreActivation,
    Sparsity,
    TanhL0,
    TargetL0,
)
from microtome.dictionaries.transcoder import Transcoder

Sample = Float[Tensor, "rows d"]
Generator = torch.Generator | None
AT_FIRST = 10  # times the L0 that is asked for, active before anything is learned, where thresholds are to find it


class Recipe(NamedTuple):
    """What is fitted, and what it is fitted to."""

    dictionary: Dictionary
    objective: Objective


def coder(
    site: Site,
    sample: Sample,
    width: int,
    activation: Activation,
    constraint: Constraint | None = None,
    generator: Generator = None,
) -> SAE:
    """An autoencoder in units of the sample's mean square."""
    units = UnitMeanSquare.of(sample)
    return SAE(site, sample.shape[1], width, activation, units, constraint, generator=generator)


def relu(site: Site, sample: Sample, width: int, sparsity: float, generator: Generator = None) -> Recipe:
    """L1 with decoder rows of length 1. Bricken et al. 2023, Towards Monosemanticity."""
    return Recipe(coder(site, sample, width, ReLU(), UnitRows(), generator), Reconstruction() + sparsity * Sparsity())


def relu_free(site: Site, sample: Sample, width: int, sparsity: float, generator: Generator = None) -> Recipe:
    """L1 weighted by the length of free decoder rows. Anthropic, April 2024 update (Circuits Updates)."""
    return Recipe(coder(site, sample, width, ReLU(), Free(), generator), Reconstruction() + sparsity * Sparsity())


def annealed(
    site: Site, sample: Sample, width: int, sparsity: float, steps: int, generator: Generator = None
) -> Recipe:
    """An Lp penalty whose p falls from 1 to 0.2 over the second half. Karvonen et al. 2024 (arXiv 2408.00113)."""
    penalty = sparsity * Annealed(start=steps // 2, stop=steps)
    return Recipe(coder(site, sample, width, ReLU(), UnitRows(), generator), Reconstruction() + penalty)


def gated(site: Site, sample: Sample, width: int, sparsity: float, generator: Generator = None) -> Recipe:
    """A gate and a magnitude, the gate trained alone. Rajamanoharan et al. 2024 (arXiv 2404.16014)."""
    return Recipe(coder(site, sample, width, Gated(width), None, generator), Reconstruction() + GateAlone(sparsity))


def topk(site: Site, sample: Sample, width: int, k: int, generator: Generator = None) -> Recipe:
    """The k largest, dead latents revived by AuxK. Gao et al. 2024 (arXiv 2406.04093)."""
    return Recipe(coder(site, sample, width, TopK(k), None, generator), Reconstruction() + AuxK(width))


def multi_topk(site: Site, sample: Sample, width: int, k: int, generator: Generator = None) -> Recipe:
    """TopK that also serves 4 k. Gao et al. 2024, appendix A.6."""
    objective = Reconstruction() + MultiTopK() + AuxK(width)
    return Recipe(coder(site, sample, width, TopK(k), None, generator), objective)


def hierarchical_topk(site: Site, sample: Sample, width: int, k: int, generator: Generator = None) -> Recipe:
    """TopK that serves every power of two up to k. Balagansky et al. 2025 (arXiv 2505.24473)."""
    keep = [j for j in (2**i for i in range(k.bit_length())) if j < k] + [k]
    return Recipe(coder(site, sample, width, TopK(k), None, generator), FewerActive(keep) + AuxK(width))


def abs_topk(site: Site, sample: Sample, width: int, k: int, generator: Generator = None) -> Recipe:
    """The k of largest magnitude, with signs. Zhu et al. 2025 (arXiv 2510.00404)."""
    return Recipe(coder(site, sample, width, AbsTopK(k), None, generator), Reconstruction() + AuxK(width))


def batch_topk(site: Site, sample: Sample, width: int, k: int, generator: Generator = None) -> Recipe:
    """The rows x k largest of a batch; a threshold afterwards. Bussmann et al. 2024 (arXiv 2412.06410)."""
    return Recipe(coder(site, sample, width, BatchTopK(k), None, generator), Reconstruction() + AuxK(width))


def matryoshka(site: Site, sample: Sample, width: int, k: int, generator: Generator = None) -> Recipe:
    """BatchTopK whose prefixes of width/16, width/8, ... must do alone. Bussmann et al. 2025 (arXiv 2503.17547)."""
    prefixes = sorted({max(1, width // 2**i) for i in range(5)})
    return Recipe(coder(site, sample, width, BatchTopK(k), None, generator), Matryoshka(prefixes) + AuxK(width))


def orthogonal(
    site: Site, sample: Sample, width: int, k: int, weight: float = 0.25, generator: Generator = None
) -> Recipe:
    """BatchTopK whose latents are pushed apart. OrtSAE: Korznikov et al. 2025 (arXiv 2509.22033)."""
    objective = Reconstruction() + weight * Orthogonality() + AuxK(width)
    return Recipe(coder(site, sample, width, BatchTopK(k), None, generator), objective)


def jump_relu(
    site: Site, sample: Sample, width: int, sparsity: float, generator: Generator = None, bandwidth: float = 1e-1
) -> Recipe:
    """Thresholds that learn from a penalty on L0. Rajamanoharan et al. 2024 (arXiv 2407.14435).

    The paper's bandwidth is 1e-3, for billions of tokens; a wider one moves thresholds within millions.
    """
    activation = JumpReLU(width, bandwidth=bandwidth)
    return Recipe(coder(site, sample, width, activation, None, generator), Reconstruction() + sparsity * L0())


def jump_relu_tanh(site: Site, sample: Sample, width: int, sparsity: float, generator: Generator = None) -> Recipe:
    """Free rows, a tanh penalty, and a pull on silent latents. Anthropic, January 2025 update (Circuits Updates)."""
    penalty = sparsity * TanhL0() + 3e-6 * PreActivation()
    activation = JumpReLU(width, threshold=0.1, bandwidth=2.0)
    return Recipe(coder(site, sample, width, activation, Free(), generator), Reconstruction() + penalty)


def jump_relu_target(
    site: Site, sample: Sample, width: int, l0: float, generator: Generator = None, bandwidth: float = 1e-1
) -> Recipe:
    """Thresholds that learn until L0 is what was asked for. Rajamanoharan et al. 2024, appendix G.

    They begin all alike, where the untrained dictionary has ten times that L0 on the sample: its first steps make
    pre-activations several times smaller, and thresholds fall slowly where hardly anything comes near them.
    """
    activation = JumpReLU(width, bandwidth=bandwidth)
    made = coder(site, sample, width, activation, None, generator)
    with torch.no_grad():
        pre = made.readings(sample[:1000])[0].pre.values.flatten()
        most = min(len(pre) // 2, max(1, round(AT_FIRST * l0 / width * len(pre))))
        activation.thresholds.fill_(pre.kthvalue(len(pre) - most).values.clamp(min=0.0))
    return Recipe(made, Reconstruction() + TargetL0(l0))


def jump_relu_frequency(
    site: Site, sample: Sample, width: int, l0: float, generator: Generator = None, most: float = 0.1
) -> Recipe:
    """The same, and no latent active on more than a tenth of all tokens. After Gemma Scope 2."""
    made = jump_relu_target(site, sample, width, l0, generator)
    return Recipe(made.dictionary, made.objective + 1e-2 * Frequency(most))


def matching_pursuit(site: Site, sample: Sample, width: int, k: int, generator: Generator = None) -> Recipe:
    """Latents chosen one after another. Costa et al. 2025 (arXiv 2506.03093)."""
    units = UnitMeanSquare.of(sample)
    made = MatchingPursuit(site, sample.shape[1], width, k, units, generator=generator)
    return Recipe(made, Reconstruction())


def end_to_end(
    model: Model, site: Site, sample: Sample, width: int, k: int, generator: Generator = None, share: float = 1.0
) -> Recipe:
    """TopK that keeps the network's predictions, batches being tokens. Braun et al. 2024 (arXiv 2405.12241).

    `share` weighs the reconstruction of the activations beside the divergence at the logits.
    """
    beside = share * Reconstruction() + AuxK(width)
    return Recipe(coder(site, sample, width, TopK(k), None, generator), SplicedKL(model, beside))


def frozen_decoder(site: Site, sample: Sample, width: int, k: int, generator: Generator = None) -> Recipe:
    """A baseline: only the encoder learns, the decoder's directions stay as they were drawn (arXiv 2602.14111)."""
    made = topk(site, sample, width, k, generator)
    made.dictionary.get_parameter("W_dec").requires_grad_(False)
    return made


def frozen_encoder(site: Site, sample: Sample, width: int, k: int, generator: Generator = None) -> Recipe:
    """A baseline: only the decoder learns, the encoder's directions stay as they were drawn (arXiv 2602.14111)."""
    made = topk(site, sample, width, k, generator)
    made.dictionary.get_parameter("W_enc").requires_grad_(False)
    return made


def transcoder(
    reads: Site, writes: Site, sample: Rows, width: int, k: int, *, skip: bool = False, generator: Generator = None
) -> Recipe:
    """What a layer computes, as k active components. Dunefsky et al. 2024 (arXiv 2406.11944); skip: 2501.18823."""
    x, y = sample[reads], sample[writes]
    units = UnitMeanSquare.of(x), UnitMeanSquare.of(y)
    sizes = x.shape[1], y.shape[1], width
    made = Transcoder(reads, writes, *sizes, TopK(k), *units, skip=skip, generator=generator)
    return Recipe(made, Reconstruction() + AuxK(width))


def cross_layer_transcoder(
    reads: Sequence[Site], writes: Sequence[Site], sample: Rows, width: int, k: int, generator: Generator = None
) -> Recipe:
    """`width` latents for each layer, k of them active, each writing there and later. Ameisen et al. 2025."""
    ins, outs = ([UnitMeanSquare.of(sample[site]) for site in sites] for sites in (reads, writes))
    d = sample[reads[0]].shape[1]
    made = CrossLayerTranscoder(reads, writes, d, width, lambda: TopK(k), ins, outs, generator=generator)
    return Recipe(made, Reconstruction() + AuxK(len(made)))


def crosscoder(sites: Sequence[Site], sample: Rows, width: int, k: int, generator: Generator = None) -> Recipe:
    """One set of latents for several layers, or for several models (model diffing). Lindsey et al. 2024."""
    units = [UnitMeanSquare.of(sample[site]) for site in sites]
    d = sample[sites[0]].shape[1]
    made = Crosscoder(sites, d, width, BatchTopK(k), units, generator=generator)
    return Recipe(made, Reconstruction() + AuxK(width))
