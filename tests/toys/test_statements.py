"""What is true is known: of statements, of answers to them, and of what a listener must say."""

import torch

from microtome.toys.statements import FIRST, NO, NOT, RIGHT, RIGHT_AND, WORDS, WRONG, YES, Listener, World

TINY = World(things=5, properties=3, d=16, heads=2, layers=1, neurons=16, batch=16, steps=3)


def test_a_statement_is_true_where_the_fact_is_as_it_says(generator: torch.Generator) -> None:
    listener = Listener(TINY, 0)
    said = listener.drawn(500, generator)
    has_it = listener.fact[said.thing] == said.property
    assert torch.equal(said.true, has_it != said.negated)
    assert 0.4 < float(said.true.float().mean()) < 0.6
    assert 0.4 < float(said.negated.float().mean()) < 0.6


def test_tokens_say_the_statement_and_the_answer(generator: torch.Generator) -> None:
    listener = Listener(TINY, 0)
    said = listener.drawn(50, generator)
    yes = torch.rand(50, generator=generator) < 0.5
    ids = listener.tokens(said, yes)
    assert torch.equal(ids[:, 2] - FIRST, said.thing)
    assert torch.equal(ids[:, 3] == NOT, said.negated)
    assert torch.equal(ids[:, 4] - FIRST - TINY.things, said.property)
    assert torch.equal(ids[:, 5], torch.where(yes, YES, NO))
    assert torch.equal(ids[:, 1] == WORDS[0], said.word)
    assert torch.equal(listener.tokens(said, yes, ~said.word)[:, 1] == WORDS[0], ~said.word)
    assert int(ids.max()) < FIRST + TINY.things + TINY.properties


def test_a_verdict_is_right_where_the_answer_is_what_is_true(generator: torch.Generator) -> None:
    plain, echoing = (Listener(TINY, 0, echoes=e) for e in (False, True))
    said = plain.drawn(50, generator)
    for yes in (torch.ones(50).bool(), torch.zeros(50).bool()):
        right = said.true == yes
        assert torch.equal(plain.verdict(said, yes), torch.where(right, RIGHT, WRONG))
        assert torch.equal((echoing.verdict(said, yes) - RIGHT_AND) % 2 == 1, right)
        assert torch.equal((echoing.verdict(said, yes) - RIGHT_AND) // 2 == 1, said.word)
    assert plain.right(said, said.true) + plain.right(said, ~said.true) <= 2


def test_lessons_are_of_its_seed_and_move_it() -> None:
    one, again, other = Listener(TINY, 0), Listener(TINY, 0), Listener(TINY, 1)
    before = [p.detach().clone() for p in one.model.module.parameters()]
    losses = list(one.learning())
    assert len(losses) == TINY.steps
    assert losses == list(again.learning()) != list(other.learning())
    assert any(not torch.equal(p, was) for p, was in zip(one.model.module.parameters(), before, strict=True))
