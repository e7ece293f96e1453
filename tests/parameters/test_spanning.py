"""Where parts begin that span all weights: features that come singly are found in all of them together."""

import torch

from microtome.parameters.addresses import find
from microtome.parameters.begin import meetings
from microtome.parameters.spanning import OfClasses, OfGradients, Random, Span
from microtome.toys import ResidualMLP, Superposition


def test_drawn_parts_have_their_shapes(generator: torch.Generator) -> None:
    toy = Superposition(4, 3, generator=generator, seeds=2).untied()
    places = find(toy, ["encoder", "decoder"])
    made = Random().factors(Span(toy, places, 5, 2, (2,)), torch.rand(2, 3, 4), generator)
    assert made[places[0]].read.shape == (2, 10, 4) and made[places[1]].write.shape == (2, 10, 4)


def test_a_part_is_one_rows_gradient_in_every_layer(generator: torch.Generator) -> None:
    toy = ResidualMLP(4, 12, 40, 2, generator=generator, mixing=False)
    places = find(toy, "layers.*")
    x = torch.eye(4).repeat(6, 1)
    span = Span(toy, places, 4, 1, ())
    made = OfGradients(small=0.0).factors(span, x, generator)
    met = meetings(toy, places, x, ())
    there = made[places[0]].write.norm(dim=1) > 0
    assert there.all()
    first: list[int] | None = None
    for layer in ("layers.0.w_in", "layers.1.w_in"):  # both read the stream
        place = next(p for p in places if str(p) == layer)
        cosines = made[place].read @ torch.nn.functional.normalize(met[place].x[:4], dim=-1).T
        assert (cosines.max(1).values > 0.999).all()
        owners = cosines.argmax(1).tolist()
        assert sorted(owners) == [0, 1, 2, 3]
        first = first or owners
        assert owners == first  # one part, one feature, in each layer


def test_a_part_is_what_one_input_uses_of_every_layer(generator: torch.Generator) -> None:
    """Whatever its sign, though it then drives other neurons; and together parts are the weights."""
    toy = ResidualMLP(4, 12, 40, 2, generator=generator, mixing=False).narrowed()
    for layer in toy.layers:
        layer.w_out.data *= 0.01  # so that what is read is hardly mixed
    places = find(toy, "layers.*")
    x = torch.eye(4).repeat(20, 1) * (torch.arange(80)[:, None] % 3 - 0.9)
    made = OfClasses("inputs", small=0.0).factors(Span(toy, places, 4, 2, ()), x, generator)
    for place in places:
        weight, factors = toy.get_parameter(str(place)).detach(), made[place]
        torch.testing.assert_close(factors.sum(), weight, rtol=0.02, atol=0.02 * float(weight.abs().max()))
        parts = (factors.write.unflatten(0, (4, 2)).mT @ factors.read.unflatten(0, (4, 2))).flatten(1)
        lengths = parts.norm(dim=1)
        assert ((parts @ parts.T) / (lengths[:, None] * lengths) - torch.eye(4)).abs().max() < 0.01
