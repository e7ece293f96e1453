"""The best pairs of two sets of things, given how well each goes with each: an assignment problem, solved exactly."""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

UNPAIRED = -1


class Pairs(NamedTuple):
    """Rows and columns of a table, pair by pair; none stands twice."""

    rows: Int[Tensor, "pairs"]
    columns: Int[Tensor, "pairs"]


def best_pairs(scores: Float[Tensor, "n m"]) -> Pairs:
    """The min(n, m) pairs whose scores have the largest sum: exact, by shortest augmenting paths.

    Jonker and Volgenant 1987 (Computing 38). Rows that want a column for themselves are given it at once; each other
    row takes at most n steps over m numbers, most far fewer. The table takes 16 m n bytes.
    """
    if scores.shape[0] > scores.shape[1]:
        rows, columns = best_pairs(scores.T)
        return Pairs(columns, rows)
    table = Table(-scores.double().cpu().numpy())
    for row in table.waiting():
        table.admit(row)
    columns = torch.from_numpy(table.column_of).to(scores.device)
    return Pairs(torch.arange(len(columns), device=scores.device), columns)


class Table:
    """Costs, who has which column, and prices: cost >= row price + column price, with equality where paired."""

    def __init__(self, cost: Float[np.ndarray, "n m"]):
        n, m = cost.shape
        self.cost, self.of_row, self.of_column = cost, cost.min(1), np.zeros(m)
        self.column_of, self.row_of = np.full(n, UNPAIRED), np.full(m, UNPAIRED)
        wanted, first = np.unique(cost.argmin(1), return_index=True)
        self.column_of[first], self.row_of[wanted] = wanted, first

    def waiting(self) -> Iterable[int]:
        """The rows without a column."""
        return np.flatnonzero(self.column_of == UNPAIRED).tolist()

    def admit(self, row: int) -> None:
        """Give this row a column, moving others along the cheapest path that ends in a free one."""
        m = self.cost.shape[1]
        distance, before, done = np.full(m, np.inf), np.full(m, row), np.zeros(m, bool)
        current, gone = row, 0.0
        while True:
            through = gone + self.cost[current] - self.of_row[current] - self.of_column
            nearer = ~done & (through < distance)
            distance[nearer], before[nearer] = through[nearer], current
            column = int(np.where(done, np.inf, distance).argmin())
            gone, done[column] = distance[column], True
            if self.row_of[column] == UNPAIRED:
                break
            current = int(self.row_of[column])
        self._reprice(row, done, distance, gone)
        self._move(row, column, before)

    def _reprice(self, row: int, done: np.ndarray, distance: np.ndarray, gone: float) -> None:
        self.of_row[row] += gone
        passed = np.flatnonzero(done & (self.row_of != UNPAIRED))
        self.of_row[self.row_of[passed]] += gone - distance[passed]
        self.of_column[passed] -= gone - distance[passed]

    def _move(self, row: int, column: int, before: np.ndarray) -> None:
        while True:
            mover = before[column]
            self.row_of[column] = mover
            self.column_of[mover], column = column, int(self.column_of[mover])
            if mover == row:
                return
