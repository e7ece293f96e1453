"""Seeds are networks of their own, and every form of a toy computes what the first one did."""

import pytest
import torch

from microtome.core.errors import NoSuchPlace, Refusal
from microtome.core.inputs import Arrays
from microtome.models.load import load
from microtome.toys.sparse import Sparse
from microtome.toys.superposition import Superposition, superposition
from microtome.toys.toy import learn


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def toy(seeds: int | None = None, biased: bool = True) -> Superposition:
    made = Superposition(5, 2, generator=generator(), seeds=seeds, biased=biased)
    if biased:
        torch.nn.init.normal_(made.bias, generator=generator(1))
    return made


@pytest.mark.parametrize("biased", [True, False])
def test_a_toy_computes_its_equation(biased: bool) -> None:
    made, x = toy(biased=biased), torch.rand(7, 5, generator=generator(2))
    w, b = made.encoder, made.bias if biased else 0.0
    want = torch.stack([(w.T @ (w @ row) + b).clamp(min=0) for row in x])
    assert torch.allclose(made(x), want, atol=1e-6)


def test_a_seed_is_the_network_alone() -> None:
    many, x = toy(seeds=3), torch.rand(3, 7, 5, generator=generator(2))
    assert torch.equal(many(x[0])[1], many.one(1)(x[0]))
    for i in range(3):
        assert torch.allclose(many(x)[i], many.one(i)(x[i]), atol=1e-6)


def test_seeds_learn_as_they_would_alone() -> None:
    given = list(Sparse(5, 0.3, seeds=2).batches(16, 5, generator(3)))
    many = toy(seeds=2)
    alone = many.one(1)
    learn(many, given)
    learn(alone, [batch[1] for batch in given])
    assert torch.allclose(many.encoder[1], alone.encoder, atol=1e-6)


def test_untied_and_with_the_identity_between_it_computes_the_same() -> None:
    made, x = toy(seeds=2), torch.rand(4, 5, generator=generator(2))
    other = made.untied().with_between(torch.eye(2))
    assert torch.equal(made(x), other(x))
    assert {n for n, p in other.named_parameters() if p.requires_grad} == {"encoder", "decoder", "bias"}
    halved = made.with_between(torch.eye(2) / 2)
    assert not torch.allclose(halved(x), made(x))


def test_parts_sum_to_the_weights() -> None:
    made = toy().untied()
    for name, parts in made.parts().items():
        assert torch.allclose(parts.sum(0), made.get_parameter(name))
        assert (torch.linalg.matrix_rank(parts) == 1).all()


def test_the_truth_writes_what_the_network_holds() -> None:
    made, x = toy(), torch.rand(7, 5, generator=generator(2))
    model, truth = load(made, sites=made.sites), made.truth()
    trace = model.run(Arrays((x,)), read=model.sites())
    assert torch.allclose(truth.reconstruct(trace[truth.reads[0]]), trace[truth.writes[0]], atol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(Refusal, match="these are 3 networks"):
        toy(seeds=3).truth()
    with pytest.raises(NoSuchPlace, match="3 seeds, so no seed 3"):
        toy(seeds=3).one(3)
    with pytest.raises(Refusal, match="no seed axis"):
        toy().one(0)
    with pytest.raises(Refusal, match="0 features in 2 dimensions"):
        Superposition(0, 2, generator=generator())


def test_a_trained_toy_gives_back_rare_features_and_keeps_all_five() -> None:
    made, truth = superposition(features=5, hidden=2, steps=600, rows=256, probability=0.05)
    one_hot = torch.eye(5)
    assert (made(one_hot).argmax(1) == torch.arange(5)).all()
    assert len(truth) == 5
