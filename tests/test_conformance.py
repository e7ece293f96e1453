"""What holds of every dictionary: its shapes, its codes, what its components write, and how it stands in a network."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
import torch
from torch import Tensor

from microtome import dictionaries
from microtome.core.codes import DenseCodes
from microtome.core.component import Dictionary
from microtome.core.edit import ablate, masked, scale, splice
from microtome.core.linear import Coordinates, Linear, Neurons
from microtome.core.site import Site
from microtome.data.windows import Window
from microtome.dictionaries.activation_functions import (
    AbsTopK,
    Activation,
    BatchTopK,
    Gated,
    JumpReLU,
    ReLU,
    TopK,
)
from microtome.dictionaries.baselines import Strongest, principal_components, random_dictionary
from microtome.dictionaries.coder import LinearCoder
from microtome.dictionaries.constraints import Free
from microtome.dictionaries.cross_layer import CrossLayerTranscoder
from microtome.dictionaries.crosscoder import Crosscoder
from microtome.dictionaries.factorisations import NonNegative
from microtome.dictionaries.matching_pursuit import MatchingPursuit
from microtome.dictionaries.normalisation import (
    LayerNorm,
    Normalisation,
    Unchanged,
    UnitMeanSquare,
    UnitNorm,
    Whitening,
)
from microtome.dictionaries.one_site import OneSite
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.transcoder import Transcoder
from microtome.directions.control import Redirected
from microtome.models.hooked import HookedModel
from microtome.parameters.weight_parts import WeightParts
from microtome.store.harvest import harvest
from tests import toys
from tests.toys import NEURONS, WIDTH

RESID = Site("resid_post.0")
NETWORK = toys.residual()


def activations() -> Tensor:
    ids = torch.randint(toys.VOCAB, (40, 8), generator=torch.Generator().manual_seed(0))
    return NETWORK.run(toys.Tokens.of(ids), read=[RESID])[RESID].flatten(0, 1)


def sae(activation: Activation, units: Normalisation | None = None) -> SAE:
    units = units or UnitMeanSquare.of(activations())
    made = SAE(RESID, WIDTH, 30, activation, units, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.b_dec.copy_(torch.linspace(-1, 1, WIDTH))
    return made.requires_grad_(False)


def tuned(made: LinearCoder | CrossLayerTranscoder) -> Dictionary:
    """Biases that are not zero, so that a forgotten one is noticed."""
    with torch.no_grad():
        made.b_dec.copy_(torch.linspace(-1, 1, made.b_dec.numel()).view_as(made.b_dec))
        made.b_enc.fill_(0.1)
    return made.requires_grad_(False)


def transcoder(activation: Activation, skip: bool = False) -> Dictionary:
    units = UnitMeanSquare.of(activations()), Whitening.of(activations())
    made = Transcoder(Site("mlp_in.0"), Site("mlp_out.0"), WIDTH, WIDTH, 30, activation, *units, skip=skip)
    if made.W_skip is not None:
        torch.nn.init.normal_(made.W_skip)
    return tuned(made)


def crosscoder(activation: Activation) -> Dictionary:
    units = [UnitMeanSquare.of(activations()), Unchanged(WIDTH)]
    return tuned(Crosscoder([RESID, Site("resid_post.1")], WIDTH, 30, activation, units, Free()))


def cross_layer(activation: Callable[[], Activation]) -> Dictionary:
    reads, writes = ([Site(f"{name}.{layer}") for layer in range(2)] for name in ("mlp_in", "mlp_out"))
    units = [UnitMeanSquare.of(activations()), Unchanged(WIDTH)]
    return tuned(CrossLayerTranscoder(reads, writes, WIDTH, 20, activation, units, units))


def pursuit() -> Dictionary:
    return MatchingPursuit(RESID, WIDTH, 30, 4, UnitMeanSquare.of(activations())).requires_grad_(False)


def neurons() -> Neurons:
    one, _, two = NETWORK.module.layers[0].mlp
    return Neurons(Site("mlp_in.0"), Site("mlp_out.0"), one.weight, one.bias, two.weight.T, two.bias)


def after_the_nonlinearity() -> Coordinates:
    two = NETWORK.module.layers[0].mlp[2]
    return Coordinates(Site("mlp_act.0", "batch pos neuron"), NEURONS, Site("mlp_out.0"), two.weight.T, two.bias)


def parts_of_a_weight() -> WeightParts:
    read, write, rest = (torch.randn(*shape) for shape in ((6, WIDTH), (6, WIDTH), (WIDTH, WIDTH)))
    return WeightParts(Site("mlp_in.0"), Site("mlp_out.0"), read, write, rest, torch.randn(WIDTH))


DICTIONARIES: dict[str, Callable[[], Dictionary]] = {
    "Linear": lambda: Linear(RESID, Site("mlp_out.1"), torch.randn(5, WIDTH), torch.randn(5, WIDTH)).requires_grad_(
        False
    ),
    "Linear, in place": lambda: Linear(RESID, RESID, torch.randn(5, WIDTH), offset=torch.ones(WIDTH)).requires_grad_(
        False
    ),
    "Neurons": neurons,
    "Coordinates": lambda: Coordinates(RESID, WIDTH),
    "Coordinates, writing elsewhere": after_the_nonlinearity,
    "SAE, TopK": lambda: sae(TopK(4)),
    "SAE, ReLU": lambda: sae(ReLU()),
    "SAE, BatchTopK": lambda: sae(BatchTopK(4)),
    "SAE, AbsTopK": lambda: sae(AbsTopK(4)),
    "SAE, JumpReLU": lambda: sae(JumpReLU(30, threshold=0.5)),
    "SAE, Gated": lambda: sae(Gated(30)),
    "SAE, whitened": lambda: sae(TopK(4), Whitening.of(activations())),
    "SAE, layer norm": lambda: sae(TopK(4), LayerNorm(WIDTH)),
    "SAE, unit norm": lambda: sae(ReLU(), UnitNorm(WIDTH)),
    "SAE, one component redirected": lambda: Redirected(sae(ReLU())[3], torch.ones(WIDTH)).requires_grad_(False),
    "SAE, unchanged": lambda: sae(ReLU(), Unchanged(WIDTH)),
    "transcoder": lambda: transcoder(TopK(4)),
    "transcoder, skip": lambda: transcoder(ReLU(), skip=True),
    "crosscoder": lambda: crosscoder(TopK(4)),
    "crosscoder, at one site": lambda: OneSite(crosscoder(JumpReLU(30, 0.5)), Site("resid_post.1")),
    "cross-layer transcoder": lambda: cross_layer(lambda: TopK(4)),
    "cross-layer transcoder, ragged": lambda: cross_layer(lambda: JumpReLU(20, 0.5)),
    "cross-layer transcoder, at one site": lambda: OneSite(cross_layer(lambda: ReLU()), Site("mlp_out.1")),
    "matching pursuit": pursuit,
    "non-negative": lambda: NonNegative(Site("mlp_act.0", "batch pos neuron"), torch.rand(5, NEURONS)),
    "Strongest": lambda: Strongest(neurons(), 3),
    "Strongest of an SAE": lambda: Strongest(sae(TopK(4)), 2),
    "parts of a weight": parts_of_a_weight,
    "random": lambda: random_dictionary(RESID, activations(), 30, 4, torch.Generator().manual_seed(0)),
    "principal components": lambda: principal_components(RESID, activations(), 3),
}


@pytest.fixture(params=DICTIONARIES)
def dictionary(request: pytest.FixtureRequest) -> Dictionary:
    return DICTIONARIES[request.param]()


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def inputs_of(dictionary: Dictionary, *lead: int) -> Tensor:
    x = torch.randn(*sites(dictionary.reads), *lead, dictionary.directions().read.shape[-1])
    return x.abs() if isinstance(dictionary, NonNegative) else x


def sites(places: tuple[Site, ...]) -> tuple[int, ...]:
    """The leading axis that several sites have."""
    return (len(places),) if len(places) > 1 else ()


def last(dictionary: Dictionary) -> Dictionary:
    """The dictionary as it writes at its last site: an edit sees only what the forward pass has met."""
    return OneSite(dictionary, dictionary.writes[-1]) if len(dictionary.writes) > 1 else dictionary


def final_classes(kind: type) -> set[type]:
    below = kind.__subclasses__()
    return {kind} if not below else set().union(*map(final_classes, below))


def test_every_dictionary_and_every_activation_of_the_package_is_here() -> None:
    for module in iter_modules(dictionaries.__path__, "microtome.dictionaries."):
        import_module(module.name)
    made = [make() for make in DICTIONARIES.values()]
    ours = {c for c in final_classes(Dictionary) if c.__module__.startswith("microtome.")}
    # Subspaces are tested where they live: a component of theirs has no one direction.
    ours = {c for c in ours if ".circuits." not in c.__module__}
    assert ours <= {type(d) for d in made}
    ours = {c for c in final_classes(Activation) if c.__module__.startswith("microtome.")}
    ours = {c for c in ours if ".parallel." not in c.__module__}  # of a crew of processes, which is tested as one
    assert ours <= {type(d.activation) for d in made if isinstance(d, SAE)}


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3)])
def test_any_leading_shape_goes_in_and_comes_out(dictionary: Dictionary, lead: tuple[int, ...]) -> None:
    x = inputs_of(dictionary, *lead)
    codes = dictionary.encode(x)
    assert codes.shape == lead and codes.width == len(dictionary)
    width = dictionary.directions().write.shape[-1]
    assert dictionary.decode(codes).shape == (*sites(dictionary.writes), *lead, width)
    flat = dictionary.encode(x.reshape(*sites(dictionary.reads), -1, x.shape[-1]))
    close(codes.dense().reshape(-1, len(dictionary)), flat.dense())


def test_sparse_codes_decode_as_dense_ones(dictionary: Dictionary) -> None:
    codes = dictionary.encode(inputs_of(dictionary, 2, 5))
    close(dictionary.decode(codes), dictionary.decode(DenseCodes(codes.dense())))


def test_a_component_writes_what_decoding_lacks_without_it(dictionary: Dictionary) -> None:
    codes = dictionary.encode(inputs_of(dictionary, 4))
    nothing = dictionary.decode(codes.scaled(torch.zeros(len(dictionary))))
    for index in range(len(dictionary)):
        only = torch.zeros(len(dictionary))
        only[index] = 1.0
        written = dictionary.contribution(codes, index)
        close(written, dictionary.decode(codes.scaled(only)) - nothing)
        close(written, codes.of(index)[:, None] * dictionary[index].write)
    total = sum(dictionary.contribution(codes, index) for index in range(len(dictionary)))
    close(dictionary.decode(codes), nothing + total)


def test_ablating_removes_the_activity_times_the_direction(dictionary: Dictionary, network: HookedModel) -> None:
    inputs, view = toys.rows(ragged=True), last(dictionary)
    site = view.writes[0]
    before = network.run(inputs, read=[site, *view.reads])
    codes = before.codes(view)
    index = int(codes.entries().components.bincount().argmax())
    left = network.run(inputs, read=[site], edit=[ablate(view[index])])[site]
    close(before[site] - left, codes.of(index)[..., None] * view[index].direction)
    twice = network.run(inputs, read=[site], edit=[scale(view[index], 2.0)])[site]
    close(twice - before[site], before[site] - left)


def test_splicing_puts_the_reconstruction_in_place(dictionary: Dictionary, network: HookedModel) -> None:
    inputs, view = toys.rows(ragged=True), last(dictionary)
    site = view.writes[0]
    before = network.run(inputs, read=list(view.reads))
    spliced = network.run(inputs, read=[site], edit=[splice(view)])[site]
    close(spliced[inputs.mask], view.reconstruct(view.gather(before))[inputs.mask])


def test_splicing_with_the_error_kept_changes_nothing(dictionary: Dictionary, network: HookedModel) -> None:
    inputs, view = toys.rows(ragged=True, left=True), last(dictionary)
    kept = network.run(inputs, edit=[masked(view, torch.ones(len(view)))])
    close(kept["logits"], network.run(inputs)["logits"])


def test_harvesting_and_then_reading_gives_what_a_run_gives_to_the_precision_of_storage(
    dictionary: Dictionary, network: HookedModel, tmp_path: Path
) -> None:
    ids = torch.randint(toys.VOCAB, (12, 8), generator=torch.Generator().manual_seed(1))
    windows = (Window(row.numpy(), "a text", torch.zeros(8, 0, dtype=torch.bool).numpy()) for row in ids)
    site = dictionary.reads[0]
    stored = harvest(network, windows, site, 10**6, tmp_path)
    now = network.run(toys.Tokens.of(ids), read=[site])[site][:, 1:].flatten(0, 1)
    missed = stored.rows(torch.arange(len(stored))) - now
    assert (
        missed.norm(dim=1) <= 2**-6 * now.norm(dim=1).mean()
    ).all()  # bfloat16 has 8 bits, and is worked in where it is quicker
