"""Truth that is there is found without labels; where something else is as opposite, the verdict says so."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.directions.latent_knowledge import ccs, crc, inconsistency, vinc
from microtome.directions.pairs_of_answers import AnswerPairs, Norms
from tests.directions.planted import answers

SPLIT = 200


def halves(pairs: AnswerPairs) -> tuple[AnswerPairs, AnswerPairs]:
    return pairs.questions(slice(None, SPLIT)), pairs.questions(slice(SPLIT, None))


def test_truth_alone_is_found_by_all_three(generator: torch.Generator) -> None:
    pairs, true, _ = answers(generator)
    learned, tested = halves(pairs)
    consistent = ccs(learned, epochs=300, generator=generator)
    for found in (consistent, crc(learned), vinc([learned])):
        assert found.orient(learned, true[:SPLIT]).accuracy(tested, true[SPLIT:]).min() >= 0.99
    assert consistent.verdict(tested) == ["settled", "settled"]
    assert float(consistent.agreement(tested).min()) >= 0.9


def test_a_distractor_of_equal_strength_makes_it_ambiguous(generator: torch.Generator) -> None:
    pairs, true, word = answers(generator, distractor=1.0)
    learned, tested = halves(pairs)
    found = ccs(learned, epochs=300, generator=generator)
    assert found.verdict(tested) == ["ambiguous", "ambiguous"]
    each = found.every(learned) > 0.5
    for labels in (true[:SPLIT], word[:SPLIT]):
        right = (each == labels).float().mean(2)
        assert (torch.maximum(right, 1 - right).amax(1) >= 0.99).all()  # some restart is about each


@pytest.mark.parametrize("d", [4, 150])
def test_noise_holds_no_answer_though_it_can_be_learned_by_heart(d: int, generator: torch.Generator) -> None:
    yes, no = torch.randn(2, 400, 1, d, generator=generator)
    learned, tested = halves(AnswerPairs(yes, no))
    found = ccs(learned, epochs=200, generator=generator)
    assert found.verdict(tested) == ["found nothing"]
    assert d == 4 or float(found.loss.min()) < 0.05


def test_orientation_exchanges_answers_and_nothing_else(generator: torch.Generator) -> None:
    pairs, true, _ = answers(generator)
    found = ccs(pairs, restarts=2, epochs=100, generator=generator)
    one, other = found.orient(pairs, true), found.orient(pairs, ~true)
    torch.testing.assert_close(one.answers(pairs), 1 - other.answers(pairs))
    torch.testing.assert_close(one.accuracy(pairs, true), 1 - other.accuracy(pairs, true), rtol=0, atol=1e-6)


def test_norms_are_those_of_what_was_learned_from(generator: torch.Generator) -> None:
    pairs, _, _ = answers(generator)
    learned, tested = halves(pairs)
    normed = Norms.of(learned)(learned)
    for x in (normed.yes, normed.no):
        torch.testing.assert_close(x.mean(0), torch.zeros_like(x[0]), rtol=0, atol=1e-5)
        torch.testing.assert_close(x.std(0), torch.ones_like(x[0]), rtol=1e-4, atol=1e-4)
    assert Norms.of(learned)(tested).yes.mean(0).abs().max() > 1e-3
    one = ccs(learned, restarts=2, epochs=5, generator=generator)
    few = tested.questions(slice(0, 3))
    torch.testing.assert_close(one.answers(tested)[:, :3], one.answers(few))


def test_restarts_and_layers_together_are_each_alone(generator: torch.Generator) -> None:
    pairs, _, _ = answers(generator, n=60, d=6)
    found = ccs(pairs, restarts=3, epochs=40, generator=torch.Generator().manual_seed(1))
    drawn = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
    normed = Norms.of(pairs)(pairs)
    w = (drawn[1, 2] / drawn[1, 2].norm()).requires_grad_()
    b = torch.zeros((), requires_grad=True)
    step = torch.optim.AdamW([w, b], lr=1e-2, weight_decay=1e-2)
    for _ in range(40):
        step.zero_grad()
        yes, no = (torch.sigmoid(x[:, 1] @ w + b) for x in (normed.yes, normed.no))
        ((yes + no - 1).square() + torch.minimum(yes, no).square()).mean().backward()
        step.step()
    torch.testing.assert_close(found.weight[1, 2], w.detach(), rtol=1e-4, atol=1e-5)


def test_saying_half_to_everything_costs_a_quarter() -> None:
    x = torch.randn(1, 3, 5)
    assert inconsistency(torch.zeros(1, 2, 3), torch.zeros(1, 2), x, x).tolist() == [[0.25, 0.25]]


def test_what_changes_with_the_wording_is_passed_over(generator: torch.Generator) -> None:
    """A loud feature that is opposite in opposite answers, drawn anew for each wording."""
    d = 16
    true = torch.rand(400, generator=generator) < 0.5
    sign = (2 * true.float() - 1)[:, None, None]
    axes = torch.eye(d)
    wordings = []
    for _ in range(4):
        loud = torch.randn(400, 1, 1, generator=generator).sign() * axes[1] * 2
        yes, no = (
            side * (sign * axes[0] + loud) + 0.3 * torch.randn(400, 1, d, generator=generator) for side in (1, -1)
        )
        wordings.append(AnswerPairs(yes, no))
    found = vinc(wordings).orient(wordings[0], true)
    assert float(found.accuracy(wordings[1], true)[0]) > 0.95
    assert found.weight[0, 0].abs().argmax() == 0


def test_what_cannot_be_asked_is_refused(generator: torch.Generator) -> None:
    pairs, _, _ = answers(generator, n=20)
    with pytest.raises(Refusal, match="at least 2 restarts"):
        crc(pairs).verdict(pairs)
    with pytest.raises(Refusal, match="same questions"):
        vinc([pairs, pairs.questions(slice(0, 10))])
    with pytest.raises(Refusal, match="both answers"):
        AnswerPairs(torch.zeros(3, 1, 2), torch.zeros(4, 1, 2))
