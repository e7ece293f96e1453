"""Dead latents are begun anew from what is explained worst; the living are left as they were."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.core.fit import Autograd, fit
from microtome.core.rows import Rows
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import JumpReLU, ReLU, TopK
from microtome.dictionaries.crosscoder import Crosscoder
from microtome.dictionaries.normalisation import UnitMeanSquare
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.resampling import Resampling, drawn
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.transcoder import Transcoder

D, WIDTH, DEAD = 6, 12, [1, 4, 7]
X, Y = Site("x"), Site("y")


def sae(activation: nn.Module | None = None, generator: torch.Generator | None = None) -> SAE:
    generator = generator or torch.Generator().manual_seed(1)
    made = SAE(X, D, WIDTH, activation or TopK(3), generator=generator)
    with torch.no_grad():
        made.b_enc[DEAD] = -1e6
    return made


def batches(count: int = 8, rows: int = 40) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(rows, D, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("activation", [lambda: TopK(3), ReLU, lambda: JumpReLU(WIDTH)])
@pytest.mark.parametrize("engine", [None, Autograd])
def test_at_its_time_dead_latents_are_begun_anew_and_the_living_learn_as_before(
    activation: Callable[[], nn.Module], engine: object
) -> None:
    settings = {} if engine is None else {"engine": engine}
    x = batches(2)
    plain = fit(sae(activation()), [], Reconstruction(), **settings)
    revived = fit(sae(activation()), [], Reconstruction(), engine=Resampling(80, 80, **settings))
    for batch in x:
        plain.step(batch)
        revived.step(batch)
    assert revived.engine.resampled == len(DEAD)
    living = [i for i in range(WIDTH) if i not in DEAD]
    mine, theirs = revived.learned, plain.learned
    for name in ("W_enc", "b_enc", "W_dec"):
        assert torch.equal(getattr(mine, name)[living], getattr(theirs, name)[living]), name
    inputs = nn.functional.normalize(mine.read(x[1]).detach(), dim=1)
    length = 0.2 * theirs.W_enc[living].norm(dim=1).mean()
    for latent in DEAD:
        assert mine.b_enc[latent] == 0
        torch.testing.assert_close(mine.W_enc[latent].norm(), length)
        torch.testing.assert_close((inputs @ mine.W_dec[latent]).max(), torch.tensor(1.0))  # it is one of the inputs
        torch.testing.assert_close(mine.W_enc[latent] / length, mine.W_dec[latent])
    for name in ("W_enc", "b_enc", "W_dec"):
        for moment in revived.engine.moments[name]:
            assert not moment[DEAD].any() and moment[living].any()


def test_what_was_begun_anew_fires_and_learns() -> None:
    learning = fit(sae(), batches(30), Reconstruction(), lr=1e-2, engine=Resampling(200, 200))
    steps = list(learning)
    assert learning.engine.resampled >= len(DEAD) and steps[-1].loss < steps[4].loss
    fires = learning.learned.encode(batches(1, 400)[0]).dense().gt(0).any(0)
    assert fires[DEAD].all()


def test_only_the_silence_before_counts_and_nothing_is_revived_after_the_last() -> None:
    when = Resampling(every=120, dead_after=40, last=240)
    learning = fit(sae(), [], Reconstruction(), engine=when)
    counts = []
    for batch in batches(9):
        learning.step(batch)
        counts.append(learning.engine.resampled)
        with torch.no_grad():
            learning.learned.b_enc[0] = -1e6 if learning.index in (2, 5, 8) else 1.0  # silent in steps 3, 6 and 9
            learning.learned.b_enc[DEAD] = 0.0
    assert counts[:2] == [0, 0] and counts[2] > 0 and counts[5] > counts[2] and counts[8] == counts[5]


def test_rows_are_drawn_as_the_square_of_their_loss() -> None:
    losses, generator = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.Generator().manual_seed(0)
    found = torch.cat([drawn(losses, 1, generator) for _ in range(4000)])
    shares = torch.bincount(found, minlength=4) / len(found)
    torch.testing.assert_close(shares, torch.tensor([0, 1, 4, 9]) / 14, atol=0.03, rtol=0)
    assert sorted(drawn(losses, 9, generator).tolist()) == [1, 2, 3]  # each once, and none that has no loss
    assert not len(drawn(torch.zeros(3), 2, generator))


def test_it_resumes_bit_for_bit() -> None:
    def learning(x: list[Tensor]) -> fit:
        return fit(sae(), x, Reconstruction() + AuxK(WIDTH), lr=1e-2, engine=Resampling(120, 80, seed=3))

    whole = learning(batches())
    steps = list(whole)
    for stop in range(1, 8):
        first, second = learning(batches()[:stop]), learning(batches()[stop:])
        list(first)
        second.load_state_dict(first.state_dict())
        assert list(second) == steps[stop:]
        assert torch.equal(second.learned.W_enc, whole.learned.W_enc)


def test_other_wirings_write_what_was_missing(generator: torch.Generator) -> None:
    x, y = torch.randn(40, D, generator=generator), 3 * torch.randn(40, 5, generator=generator) + 7
    units = UnitMeanSquare.of(y)
    coder = Transcoder(X, Y, D, 5, WIDTH, ReLU(), units_out=units, generator=generator)
    with torch.no_grad():
        coder.b_enc[DEAD] = -1e6
    fit(coder, [], Reconstruction(), engine=Resampling(40, 40)).step(Rows({"x": x, "y": y}))
    for latent in DEAD:
        row = nn.functional.cosine_similarity(coder.read(x), coder.W_enc[latent][None]).argmax()
        wanted = units(y[row]) - coder.b_dec
        torch.testing.assert_close(coder.W_dec[latent], wanted / wanted.norm())


def test_a_crosscoders_latents_are_revived_over_all_its_sites(generator: torch.Generator) -> None:
    values = {"x": torch.randn(40, D, generator=generator), "y": torch.randn(40, D, generator=generator)}
    coder = Crosscoder([X, Y], D, WIDTH, ReLU(), generator=generator)
    with torch.no_grad():
        coder.b_enc[DEAD] = -1e6
    learning = fit(coder, [], Reconstruction(), engine=Resampling(40, 40))
    learning.step(Rows(values))
    assert learning.engine.resampled == len(DEAD)
    both = nn.functional.normalize(torch.cat([values["x"], values["y"]], 1) - coder.b_dec, dim=1)
    torch.testing.assert_close((coder.W_dec[DEAD] @ both.T).amax(1), torch.ones(len(DEAD)))


def test_aiming_is_what_decoding_undoes(generator: torch.Generator) -> None:
    """decode adds what W_dec codes are; so from what it gives, aim finds that again."""
    y = torch.randn(30, D, generator=generator) * 3 + 1
    codes = torch.randn(7, WIDTH, generator=generator)
    from microtome.core.codes import DenseCodes

    units = UnitMeanSquare.of(y)
    coders = [
        SAE(X, D, WIDTH, ReLU(), units, generator=generator),
        Transcoder(X, Y, 4, D, WIDTH, ReLU(), units_out=units, generator=generator),
        Crosscoder([X, Y], D, WIDTH, ReLU(), [units, units], generator=generator),
    ]
    for coder in coders:
        nn.init.normal_(coder.b_dec, generator=generator)
        torch.testing.assert_close(coder.aim(coder.decode(DenseCodes(codes))), codes @ coder.W_dec)


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(Refusal, match="dead_after is 200 and every is 100; a latent must be silent for at least one"):
        Resampling(100, 200)
    with pytest.raises(Refusal, match="Linear under Autograd has no latents to resample; use a dictionary"):
        fit(nn.Linear(2, 2), [], Reconstruction(), engine=Resampling(100, 100))
    learning = fit(sae(), [], Reconstruction(), engine=Resampling(100, 100))
    with pytest.raises(Refusal, match="this state was saved without resampling"):
        learning.load_state_dict(fit(sae(), [], Reconstruction()).state_dict())
