"""Networks whose truth is known: what a method finds in them can be held against what is there."""

from microtome.toys.residual_mlp import ResidualMLP
from microtome.toys.sparse import Sparse
from microtome.toys.superposition import Superposition

__all__ = ["ResidualMLP", "Sparse", "Superposition"]
