"""Networks whose truth is known: what a method finds in them can be held against what is there."""

from microtome.toys.modular import ModularAddition
from microtome.toys.residual_mlp import ResidualMLP
from microtome.toys.sparse import Sparse
from microtome.toys.superposition import Superposition, superposition

__all__ = ["ModularAddition", "ResidualMLP", "Sparse", "Superposition", "superposition"]
