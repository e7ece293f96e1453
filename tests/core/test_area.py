"""The area is the share of pairs in the right order, by brute force."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from microtome.core.area import area


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=2, max_size=12))
def test_it_is_the_share_of_pairs_in_the_right_order(things):
    scores, true = torch.tensor([float(s) for s, _, _ in things]), torch.tensor([t for _, t, _ in things])
    times = torch.tensor([[n for _, _, n in things], [1] * len(things)]).double()
    for found, weights in zip(area(scores, true, times).tolist(), times.tolist(), strict=True):
        pairs = [
            (weights[i] * weights[j], (scores[i] > scores[j]).item() + 0.5 * (scores[i] == scores[j]).item())
            for i in range(len(things))
            for j in range(len(things))
            if true[i] and not true[j]
        ]
        whole = sum(w for w, _ in pairs)
        assert found == found or not whole
        if whole:
            assert abs(found - sum(w * a for w, a in pairs) / whole) < 1e-9


def test_perfect_and_reversed():
    scores, true = torch.arange(6.0), torch.arange(6) > 2
    assert area(scores, true).item() == 1
    assert area(-scores, true).item() == 0
