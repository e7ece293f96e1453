"""The closed form is the loss of the networks that it speaks of; learned phases are those of planted weights."""

import pytest
import torch

from microtome.toys.phases import (
    LEFT_OUT,
    OWN,
    SHARED,
    borders,
    chances,
    closed_form,
    learned,
    log_grid,
    phase,
    points,
    within_one,
)


@pytest.mark.parametrize("features", [2, 3])
def test_the_closed_form_names_the_network_of_least_loss(features: int) -> None:
    importance, density = log_grid(9).cells()
    fineness = 16
    rows = points(features, fineness)
    weights, mean = chances(rows, density, fineness), density / 2
    pair = torch.zeros(features - 1, features)
    pair[:, : features - 1] = torch.eye(features - 1)
    left_out, shared = pair.clone(), pair.clone()
    shared[0, -1] = -1.0
    candidates = {LEFT_OUT: [left_out], SHARED: [shared], OWN: []}
    for others in [[1.0, -1.0], [1.0, 0.0]] if features == 3 else [[0.0]]:
        own = torch.zeros(features - 1, features)
        own[0, :-1], own[-1, -1] = torch.tensor(others), 1.0
        candidates[OWN].append(own)
    losses = torch.full((3, len(density)), torch.inf)
    for kind, networks in candidates.items():
        for w in networks:
            gone = w.norm(dim=0) == 0
            y = (rows @ w.T @ w).clamp(min=0) + gone * mean[:, None, None]  # what is left out is guessed by its mean
            missed = (y - rows).pow(2)
            missed[..., -1] *= importance[:, None]
            losses[kind] = losses[kind].minimum((weights * missed.sum(-1)).sum(1))
    best = losses.gather(0, closed_form(features, importance, density)[None])[0]
    assert (best <= losses.amin(0) * 1.02 + 1e-6).all()  # to the fineness of the grid of values


def test_chances_sum_to_one_and_give_the_density() -> None:
    rows, density = points(3, 4), torch.tensor([0.01, 0.5, 1.0])
    weights = chances(rows, density, 4)
    assert torch.allclose(weights.sum(1), torch.ones(3))
    assert torch.allclose(weights @ (rows > 0).float(), density[:, None].expand(3, 3))
    assert torch.allclose(weights @ rows, density[:, None].expand(3, 3) / 2)


def test_phases_of_planted_weights() -> None:
    planted = torch.tensor([[[1.0, 0.0]], [[1.0, -1.0]], [[0.0, 1.0]], [[0.3, 1.0]]])
    assert phase(planted).tolist() == [LEFT_OUT, SHARED, OWN, OWN]


def test_learned_phases_far_from_any_border() -> None:
    importance, density = torch.tensor([0.1, 1.0, 10.0]), torch.tensor([0.95, 0.05, 0.95])
    found = learned(2, importance, density, generator=torch.Generator().manual_seed(0), steps=150, fineness=5)
    assert found.tolist() == [LEFT_OUT, SHARED, OWN]


def test_borders_and_what_lies_within_one_cell_of_them() -> None:
    halves = torch.zeros(5, 6, dtype=torch.long)
    halves[:, 3:] = 1
    assert borders(halves).nonzero()[:, 1].unique().tolist() == [2, 3]
    moved = torch.zeros_like(halves)
    moved[:, 4:] = 1
    assert within_one(borders(halves), borders(moved)) == 1.0
    far = torch.zeros_like(halves)
    far[:, 5:] = 1
    assert within_one(borders(halves), borders(far)) == 0.5
    assert within_one(borders(halves), torch.zeros_like(halves, dtype=torch.bool)) == 0.0
