"""Why a head looked there: the terms of its score add up to the score, in every family that shows its scores."""

import pytest
import torch

from microtome.circuits.qk_attribution import attribute_score
from microtome.circuits.replacement import Replacement
from microtome.core.errors import Refusal
from tests.circuits.sets import prompt, relative, transcoders
from tests.models import zoo

UNCAPPED = ["llama", "gpt2", "gpt_neox", "qwen2", "qwen3", "phi", "olmo2", "opt"]


def replacement(name: str) -> Replacement:
    return Replacement(zoo.model(name), prompt(), transcoders(zoo.model(name)))


@pytest.mark.parametrize("name", UNCAPPED)
def test_terms_add_up_to_the_score(name: str) -> None:
    made = replacement(name)
    scores = made.model.run(prompt(), read=[made.model.site("scores.1")])["scores.1"][0].detach()
    for head, query, key in ((0, 6, 2), (3, 4, 4), (2, 5, 0)):
        found = attribute_score(made, 1, head, query, key)
        wanted = float(scores[head, query, key])
        assert found.score == pytest.approx(wanted, abs=1e-4)
        assert float(found.terms().sum()) == pytest.approx(wanted, abs=1e-4 * max(1, float(found.terms().abs().max())))


def test_under_a_soft_cap_they_add_up_to_what_is_capped() -> None:
    made = replacement("gemma2")
    cap = made.model.module.config.attn_logit_softcapping
    score = float(made.model.run(prompt(), read=[made.model.site("scores.1")])["scores.1"][0, 1, 6, 4].detach())
    found = attribute_score(made, 1, 1, 6, 4)
    assert cap * torch.tensor(found.score / cap).tanh().item() == pytest.approx(score, abs=1e-4)


def test_a_term_is_what_both_would_give_alone() -> None:
    made = replacement("llama")
    found = attribute_score(made, 1, 2, 5, 3)
    largest = found.top(5)
    assert [abs(p.term) for p in largest] == sorted((abs(p.term) for p in largest), reverse=True)
    q, k = (int(i) for i in divmod(int(found.terms().abs().argmax()), len(found.nodes) + 1))
    alone = found.by * found.queries[q] @ found.keys[k]
    assert relative(alone[None], torch.tensor([largest[0].term])) < 1e-5
    for pair in found.top(20):
        for node, position in ((pair.query, 5), (pair.key, 3)):
            assert node is None or node.position <= position  # nothing comes from what was not yet read


def test_what_a_head_cannot_see_is_refused() -> None:
    made = replacement("llama")
    with pytest.raises(Refusal, match="cannot look from position 2 to 5"):
        attribute_score(made, 1, 0, 2, 5)
    with pytest.raises(Refusal, match="has 4 heads, so no head 4"):
        attribute_score(made, 1, 4, 2, 1)
    with pytest.raises(Refusal, match="7 tokens, so no position 9"):
        attribute_score(made, 1, 0, 9, 1)
